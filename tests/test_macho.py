"""scripts/cross/macho.py: what a Mac would refuse is found, in a small Mach-O file made here."""

import hashlib
import pathlib
import struct
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "cross" / "macho.py"
PAGE = 4096


def padded(data):
    return data + b"\0" * (-len(data) % 8)


def command(number, *words, text=b""):
    body = b"".join(struct.pack("<I", word) for word in words) + (padded(text + b"\0") if text else b"")
    return struct.pack("<2I", number, 8 + len(body)) + body


def symbol(name_at, defined, number):
    return struct.pack("<IBBHQ", name_at, 0x01 | (0x0E if defined else 0), 1 if defined else 0, number << 8, 0)


def signed(commands, n_commands, tail):
    """A file of these commands, then `tail`, which begins where {tail} says, with a signature."""
    header = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 2, n_commands + 1, 0, 0, 0)
    start = len(header) + len(commands) + 16
    limit = start + len(tail)
    body = header + commands + command(0x1D, limit, 4096) + tail
    pages = [body[p:p + PAGE] for p in range(0, limit, PAGE)]
    directory = struct.pack(">9I4B", 0xFADE0C02, 0, 0x20400, 2, 88, 0, 0, len(pages), limit, 32, 2, 0, 12)
    directory = directory.ljust(88, b"\0") + b"".join(hashlib.sha256(page).digest() for page in pages)
    blob = struct.pack(">3I2I", 0xFADE0CC0, 0, 1, 0, 20) + directory
    return body + blob.ljust(4096, b"\0")


def macho(path, minimum=(14, 0), loads=("/usr/lib/libSystem.B.dylib",), rpath="", defined=(), undefined=()):
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*defined, *(n for n, _ in undefined)])
    commands = command(0x32, 1, minimum[0] << 16 | minimum[1] << 8, 0, 0)
    for library in loads:
        commands += command(0xC, 24, 0, 0, 0, text=library.encode())
    n = 1 + len(loads)
    if rpath:
        commands += command(0x8000001C, 12, text=rpath.encode())
        n += 1
    count = len(defined) + len(undefined)
    start = 32 + len(commands) + 24 + 16
    at, table = 1, b""
    for name in defined:
        table += symbol(at, True, 0)
        at += len(name) + 1
    for name, number in undefined:
        table += symbol(at, False, number)
        at += len(name) + 1
    commands += command(0x2, start, count, start + len(table), len(names))
    path.write_bytes(signed(commands, n + 1, table + names))
    return path


def check(path, *arguments, minimum="14.0"):
    return subprocess.run([sys.executable, SCRIPT, "--check", minimum, *map(str, arguments), path], capture_output=True, text=True)


def test_good(tmp_path):
    done = check(macho(tmp_path / "program", defined=["_main"], undefined=[("_puts", 1)]))
    assert done.returncode == 0, done.stderr
    assert "program for macOS 14.0, signed (1 pages), 1 symbols from others" in done.stdout
    assert "loads /usr/lib/libSystem.B.dylib" in done.stdout


def test_module(tmp_path):
    """Its symbols come from the program and from MLX's library; each that is in neither is named."""
    program = macho(tmp_path / "program", defined=["_fail"])
    library = macho(tmp_path / "libmlx.dylib", defined=["_add"])
    with_library = {"loads": ("/usr/lib/libSystem.B.dylib", "@rpath/libmlx.dylib"), "rpath": "@loader_path/x"}
    arguments = ["--program", program, "--library", library, "--rpath", "@loader_path/x"]
    good = macho(tmp_path / "good", undefined=[("_fail", 0xFE), ("_add", 2), ("_puts", 1)], **with_library)
    assert check(good, *arguments).returncode == 0
    for name, number, said in [("_gone", 0xFE, "from the program"), ("_gone", 0, "from the program"), ("_gone", 2, "from libmlx.dylib")]:
        done = check(macho(tmp_path / "bad", undefined=[(name, number)], **with_library), *arguments)
        assert done.returncode == 1 and f"takes _gone {said}, which lacks it" in done.stderr


@pytest.mark.parametrize("change, said", [
    ({"minimum": (15, 0)}, "is for macOS 15.0 and later, not 14.0"),
    ({"loads": ("/opt/homebrew/lib/libpcre2-8.dylib",)}, "loads /opt/homebrew/lib/libpcre2-8.dylib, which a Mac does not have"),
    ({"loads": ("@rpath/libmlx.dylib",)}, "loads @rpath/libmlx.dylib, which a Mac does not have"),
    ({"rpath": "/home/somebody/lib"}, "looks for libraries in ['/home/somebody/lib'], not in None"),
    ({"undefined": [("_gone", 0xFE)]}, "takes _gone from nowhere"),
])
def test_refused(tmp_path, change, said):
    done = check(macho(tmp_path / "program", **change))
    assert done.returncode == 1 and said in done.stderr


def test_signature(tmp_path):
    path = macho(tmp_path / "program")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert "has a wrong signature: 1 of 1 pages" in check(path).stderr
    path.write_bytes(struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 2, 0, 0, 0, 0))
    assert "has no signature" in check(path).stderr
    path.write_bytes(struct.pack("<8I", 0xFEEDFACF, 0x01000007, 0, 2, 0, 0, 0, 0))
    assert "has no signature" not in check(path).stderr  # Intel
    path.write_bytes(b"\x7fELF" + b"\0" * 60)
    assert "is no 64-bit Mach-O file" in check(path).stderr


def test_stub(tmp_path):
    path = macho(tmp_path / "libmlx.dylib", loads=("/usr/lib/libc++.1.dylib",), undefined=[("__Znwm", 1)])
    subprocess.run([sys.executable, SCRIPT, "--stub", tmp_path / "libc++.tbd", path], check=True)
    assert "'__Znwm'" in (tmp_path / "libc++.tbd").read_text()
