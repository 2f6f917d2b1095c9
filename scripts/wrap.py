"""Wraps comments at 100 columns, and checks that comments and documents are no wider.

usage: wrap.py [--check]    over all files that git knows or could add. --check changes nothing, prints
                            each line that is too wide as FILE:LINE, and ends with 1 when there is one.
In documents tables, addresses and indented code may be wider; they are not wrapped here, only checked.
"""

import pathlib
import re
import subprocess
import sys
import textwrap

WIDTH = 100
ROOT = pathlib.Path(__file__).resolve().parent.parent
C_FILES = {".c", ".h", ".cpp", ".hpp", ".def"}
HASH_FILES = {".py", ".sh", ".cmake", ".txt", ".yml"}


def comments(lines, suffix):
    """Yields (first, last) of each comment that has its lines for itself."""
    i = 0
    while i < len(lines):
        first = i
        if suffix in C_FILES and re.match(r"\s*/\*", lines[i]):
            while "*/" not in lines[i] and i + 1 < len(lines):
                i += 1
            if lines[i].rstrip().endswith("*/"):
                yield first, i
        elif suffix in HASH_FILES and re.match(r"\s*#( |$)", lines[i]):
            while i + 1 < len(lines) and re.match(r"\s*#( |$)", lines[i + 1]):
                i += 1
            yield first, i
        i += 1


def wrapped(block, suffix):
    """The comment's lines, with each paragraph that is too wide wrapped again from there on."""
    indent = re.match(r"\s*", block[0]).group()
    if suffix in C_FILES:
        text = [re.sub(r"^\s*(/\*|\*(?!/))? ?", "", line, count=1) for line in block]
        text[-1] = re.sub(r"\s*\*/\s*$", "", text[-1])
        alone = len(text) > 1 and not text[-1]
        starts, end = (indent + "/* ", indent + " * "), "" if alone else " */"
        if alone:
            text.pop()
    else:
        text = [re.sub(r"^\s*# ?", "", line, count=1) for line in block]
        starts, end, alone = (indent + "# ", indent + "# "), "", False
    out, i = [], 0
    while i < len(text):
        room = WIDTH - len(starts[1])
        last = i == len(text) - 1
        if len(text[i]) + (len(end) if last else 0) <= room:
            out.append(text[i])
            i += 1
            continue
        hang = re.match(r"(\s*(?:- |\d+\. )?(?:\S+ {2,})?)", text[i]).group(1)
        paragraph = [text[i]]
        same = " " * len(hang)
        while i + 1 < len(text) and text[i + 1].strip() and not text[i + 1].startswith("usage:") and (
                not hang and not text[i + 1].startswith((" ", "- ")) or
                hang and text[i + 1].startswith(same) and text[i + 1][len(same):len(same) + 1] != " "):
            i += 1
            paragraph.append(text[i])
        i += 1
        closing = "\u00a0*/" if end and i == len(text) else ""  # not to be parted from the last word
        joined = hang + " ".join(part.strip() if k else part[len(hang):] for k, part in enumerate(paragraph))
        parts = textwrap.wrap(joined + closing, room, subsequent_indent=same, break_long_words=False,
                              break_on_hyphens=False)
        parts[-1] = parts[-1].removesuffix(closing)
        out += parts
    lines = [(starts[0] if k == 0 else starts[1]) + part for k, part in enumerate(out)]
    if suffix in C_FILES:
        lines[-1] += "" if alone else end
        if alone:
            lines.append(indent + " */")
    return [line.rstrip() for line in lines]


def wide_in_document(lines):
    """Numbers of lines that are too wide, but for tables, addresses and code."""
    fenced = False
    for i, line in enumerate(lines):
        fenced ^= line.startswith("```")
        code = fenced or line.startswith("    ") or line.startswith("```")
        if len(line) > WIDTH and not code and not line.startswith(("|", "!")) and "://" not in line:
            yield i


def main():
    check = sys.argv[1:] == ["--check"]
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    found = 0
    for name in listed:
        path = ROOT / name
        suffix = path.suffix or (".sh" if path.name == "Makefile" else "")
        if suffix not in C_FILES | HASH_FILES | {".md"} or not path.is_file():
            continue
        lines = path.read_text().split("\n")
        wide = list(wide_in_document(lines)) if suffix == ".md" else []
        for first, last in reversed(list(comments(lines, suffix))):
            block = lines[first:last + 1]
            if all(len(line) <= WIDTH for line in block) or any("://" in line for line in block):
                continue
            if check:
                wide += [first + k for k, line in enumerate(block) if len(line) > WIDTH]
            else:
                lines[first:last + 1] = wrapped(block, suffix)
        found += len(wide)
        for i in sorted(wide):
            print(f"{name}:{i + 1}: {len(lines[i])} columns, at most {WIDTH}")
        if not check and suffix != ".md" and "\n".join(lines) != path.read_text():
            path.write_text("\n".join(lines))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
