"""Reads Mach-O files, the format of macOS's programs and libraries, and checks what a Mac would refuse.

usage: macho.py --check MINIMUM [--program FILE] [--library FILE] [--rpath PATH] FILE
           the signature's page hashes, the oldest macOS (MINIMUM, as 14.0), what is loaded, where from; with --program
           and --library each symbol that FILE takes from the program or that library is there
       macho.py --list FILE...       what each file loads, as `otool -L` shows it, its rpaths, its oldest macOS
       macho.py --stub OUT FILE...   writes a stub of the system's libc++ for the linker: the symbols that FILEs take from it

A Mac with an Apple processor ends a program whose signature does not match; a library that lacks a symbol is found out
only when it is loaded. Source: Apple's mach-o/loader.h, mach-o/nlist.h and cs_blobs.h.
"""

import argparse
import dataclasses
import hashlib
import pathlib
import struct
import sys

MAGIC_64, ARM64 = 0xFEEDFACF, 0x0100000C
KINDS = {2: "program", 6: "library", 8: "bundle"}
SYMTAB, LOAD_DYLIB, LOAD_WEAK_DYLIB, REEXPORT_DYLIB = 0x2, 0xC, 0x80000018, 0x8000001F
RPATH, CODE_SIGNATURE, BUILD_VERSION = 0x8000001C, 0x1D, 0x32
STAB, TYPE, UNDEFINED, EXTERNAL = 0xE0, 0x0E, 0x0, 0x1  # of a symbol's n_type
# In the place of a library's number; zig's linker writes 0 for the first, and the right thing where
# dyld looks.
DYNAMIC_LOOKUP, EXECUTABLE, SELF = 0xFE, 0xFF, 0x00
SUPER_BLOB, CODE_DIRECTORY, SHA256 = 0xFADE0CC0, 0xFADE0C02, 2
SYSTEM = ("/usr/lib/", "/System/Library/")
# Of every macOS's libc++ as well, by LLVM's list of what it exports, though MLX takes neither:
# operator delete with a size, and std::to_string(long long).
ALSO_IN_LIBCXX = {"__ZdlPvm", "__ZNSt3__19to_stringEx"}


@dataclasses.dataclass
class MachO:
    path: str
    data: bytes
    cpu: int = 0
    kind: str = ""
    minimum: str = ""
    libraries: list = dataclasses.field(default_factory=list)
    rpaths: list = dataclasses.field(default_factory=list)
    defined: set = dataclasses.field(default_factory=set)
    undefined: list = dataclasses.field(default_factory=list)  # (name, library's path, "program" or "anywhere")
    signature: bytes = b""
    signature_at: int = 0


def text_at(data, at):
    return data[at:data.index(b"\0", at)].decode()


def read_symbols(file, at, count, strings):
    for i in range(count):
        name_at, kind, _, description = struct.unpack_from("<IBBH", file.data, at + 16 * i)
        if kind & STAB or not kind & EXTERNAL:
            continue
        name = text_at(file.data, strings + name_at)
        if kind & TYPE != UNDEFINED:
            file.defined.add(name)
            continue
        number = description >> 8
        where = {DYNAMIC_LOOKUP: "anywhere", SELF: "anywhere", EXECUTABLE: "program"}.get(number)
        file.undefined.append((name, where or file.libraries[number - 1]))


def read(path):
    file = MachO(path, pathlib.Path(path).read_bytes())
    magic, file.cpu, _, kind, n_commands = struct.unpack_from("<5I", file.data)
    if magic != MAGIC_64:
        sys.exit(f"{path} is no 64-bit Mach-O file")
    file.kind = KINDS.get(kind, f"kind {kind}")
    at, symbols = 32, None
    for _ in range(n_commands):
        command, size = struct.unpack_from("<2I", file.data, at)
        offset = struct.unpack_from("<I", file.data, at + 8)[0]
        if command in (LOAD_DYLIB, LOAD_WEAK_DYLIB, REEXPORT_DYLIB):
            file.libraries.append(text_at(file.data, at + offset))
        elif command == RPATH:
            file.rpaths.append(text_at(file.data, at + offset))
        elif command == BUILD_VERSION:
            version = struct.unpack_from("<I", file.data, at + 12)[0]
            file.minimum = f"{version >> 16}.{version >> 8 & 255}"
        elif command == SYMTAB:
            symbols = struct.unpack_from("<3I", file.data, at + 8)
        elif command == CODE_SIGNATURE:
            file.signature_at, length = struct.unpack_from("<2I", file.data, at + 8)
            file.signature = file.data[file.signature_at:file.signature_at + length]
        at += size
    if symbols:
        read_symbols(file, *symbols)
    return file


def wrong_pages(file):
    """How many pages of how many do not have the hash that the file's signature says; None without a signature."""
    if len(file.signature) < 12:
        return None
    magic, _, count = struct.unpack_from(">3I", file.signature)
    if magic != SUPER_BLOB:
        return None
    for i in range(count):
        blob = file.signature[struct.unpack_from(">2I", file.signature, 12 + 8 * i)[1]:]
        magic, _, _, _, hashes, _, _, n_pages, limit, size, kind, _, page = struct.unpack_from(">9I4B", blob)
        if magic != CODE_DIRECTORY:
            continue
        if kind != SHA256 or limit != file.signature_at or n_pages != -(-limit >> page):
            return n_pages, n_pages
        wrong = 0
        for p in range(n_pages):
            content = file.data[p << page:min((p + 1) << page, limit)]
            wrong += hashlib.sha256(content).digest() != blob[hashes + size * p:hashes + size * (p + 1)]
        return wrong, n_pages
    return None


def problems(file, minimum, program, library, rpath):
    pages = wrong_pages(file)
    if not pages and file.cpu == ARM64:
        yield "has no signature: a Mac with an Apple processor does not run it"
    elif pages and pages[0]:
        yield f"has a wrong signature: {pages[0]} of {pages[1]} pages"
    if file.minimum != minimum:
        yield f"is for macOS {file.minimum} and later, not {minimum}"
    for path in file.libraries:
        if not path.startswith(SYSTEM) and not (library and path.startswith("@rpath/")):
            yield f"loads {path}, which a Mac does not have"
    if file.rpaths != ([rpath] if rpath else []):
        yield f"looks for libraries in {file.rpaths}, not in {rpath}"
    mine = pathlib.Path(library.path).name if library else ""
    for name, where in file.undefined:
        if where in ("anywhere", "program") and program and name not in program.defined:
            yield f"takes {name} from the program, which lacks it"
        if library and where.endswith("/" + mine) and name not in library.defined:
            yield f"takes {name} from {mine}, which lacks it"
        if where == "anywhere" and not program:
            yield f"takes {name} from nowhere"


def check(options):
    program = read(options.program) if options.program else None
    library = read(options.library) if options.library else None
    file = read(options.files[0])
    found = list(problems(file, options.check, program, library, options.rpath))
    for problem in found:
        print(f"{file.path} {problem}", file=sys.stderr)
    if not found:
        pages = wrong_pages(file)
        signed = f"signed ({pages[1]} pages)" if pages else "not signed, as an Intel processor does not ask"
        print(f"cross: {file.path}: {file.kind} for macOS {file.minimum}, {signed}, {len(file.undefined)} symbols from others")
        list_file(file)
    return 1 if found else 0


def list_file(file):
    for path in file.libraries:
        print(f"    loads {path}")
    for path in file.rpaths:
        print(f"    rpath {path}")


def write_stub(out, files):
    names = {name for path in files for name, where in read(path).undefined if where == "/usr/lib/libc++.1.dylib"}
    if not names:
        sys.exit(f"none of {', '.join(files)} takes anything from libc++")
    symbols = ", ".join(f"'{name}'" for name in sorted(names | ALSO_IN_LIBCXX))
    pathlib.Path(out).write_text(f"""--- !tapi-tbd
tbd-version: 4
targets: [ arm64-macos ]
install-name: '/usr/lib/libc++.1.dylib'
exports:
  - targets: [ arm64-macos ]
    symbols: [ {symbols} ]
...
""")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check")
    parser.add_argument("--program")
    parser.add_argument("--library")
    parser.add_argument("--rpath")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--stub")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    if options.stub:
        write_stub(options.stub, options.files)
    elif options.check:
        return check(options)
    for file in map(read, options.files if options.list else []):
        print(f"{file.path}: {file.kind} for macOS {file.minimum}")
        list_file(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
