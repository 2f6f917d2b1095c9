"""Prints the newest version of glibc that a program's symbols ask for; ends with 1 when 2.28 lacks it.

usage: glibc_version.py PROGRAM
"""

import pathlib
import re
import sys

LIMIT = (2, 28)


def main():
    # Version names are strings of the section .dynstr, each ended by a zero.
    found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)", pathlib.Path(sys.argv[1]).read_bytes())
    if not found:
        sys.exit(f"{sys.argv[1]} asks for no version of glibc: is it a program for Linux?")
    newest = max((int(major), int(minor)) for major, minor in found)
    print(f"{newest[0]}.{newest[1]}")
    if newest > LIMIT:
        sys.exit(f"{sys.argv[1]} needs glibc {newest[0]}.{newest[1]}, newer than {LIMIT[0]}.{LIMIT[1]}")


if __name__ == "__main__":
    main()
