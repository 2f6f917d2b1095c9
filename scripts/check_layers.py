"""Checks the direction of #include between the folders of src/, and that they use each other's public header.

usage: check_layers.py [SRC]    prints each violation as FILE:LINE and ends with 1 when there is one.
"""

import pathlib
import re
import sys

# An arrow goes from a folder to what it is built on; it may use all that its arrows reach.
ARROWS = {
    "main.c": ["cmd", "base"],
    "cmd": ["report", "bench", "text", "sys", "hub"],
    "report": ["results"],
    "bench": ["generate", "quality", "results"],
    "quality": ["sys"],
    "results": ["base"],
    "generate": ["model", "checkpoint", "text"],
    "model": ["engine", "checkpoint"],
    "engine": ["base"],
    "checkpoint": ["sys"],
    "text": ["base"],
    "hub": ["base"],
    "sys": ["base"],
    "base": [],
}
# The program itself only starts a command.
DIRECT_ONLY = {"main.c"}


def reach(folder):
    """The folders that `folder` may use."""
    if folder in DIRECT_ONLY:
        return set(ARROWS[folder])
    found, todo = set(), [folder]
    while todo:
        for target in ARROWS[todo.pop()]:
            if target not in found:
                found.add(target)
                todo.append(target)
    return found


def check_file(path, folder, src):
    """The violations in one file, as text."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not match:
            continue
        included = match.group(1)
        target = included.split("/")[0]
        where = f"{path.relative_to(src)}:{number}: includes {included}"
        if "/" not in included or ".." in included.split("/"):
            yield f"{where}: write the path from src/, as in \"{folder}/{included}\""
        elif target == folder:
            continue
        elif target not in ARROWS:
            yield f"{where}: no folder {target} in scripts/check_layers.py"
        elif target not in reach(folder):
            yield f"{where}: {folder} may not use {target}"
        elif included != f"{target}/{target}.h":
            yield f"{where}: private to {target}, others use {target}/{target}.h"


def violations(src):
    for path in sorted(src.rglob("*")):
        if path.suffix not in {".c", ".h", ".def", ".cpp", ".hpp"}:
            continue
        folder = path.relative_to(src).parts[0]
        if folder not in ARROWS:
            yield f"{path.relative_to(src)}: no folder {folder} in scripts/check_layers.py"
            continue
        yield from check_file(path, folder, src)


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    src = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "src"
    found = list(violations(src))
    print("\n".join(found) if found else "layers: every include follows the order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
