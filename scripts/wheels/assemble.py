"""Puts a built program, its engine mlx and its data into a wheel. The build is CMake's; a wheel only carries it.

usage: assemble.py TAG FOLDER OUT [MODULE]
       TAG as macosx_14_0_arm64; FOLDER has the program; MODULE is the engine mlx, left out where there is none;
       prints the wheel's path in OUT
"""

import pathlib
import re
import sys
from zipfile import ZIP_DEFLATED, ZipInfo

from wheel.wheelfile import WheelFile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "build-cross" / "sources"
LICENCES = {"mlxbench": ROOT / "LICENSE", "PCRE2": SOURCES / "pcre2" / "LICENCE",
            "utf8proc": SOURCES / "utf8proc" / "LICENSE.md", "cJSON": SOURCES / "cjson" / "LICENSE"}
# Which of MLX's wheels has the backend, by the name of our extra; Macs have one choice.
EXTRAS = {"cpu": "mlx-cpu", "cuda12": "mlx-cuda-12", "cuda13": "mlx-cuda-13"}


def version():
    return re.search(r"project\(mlxbench VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


def mlx_version():
    return re.search(r"set\(MLX_VERSION ([0-9.]+)\)", (ROOT / "cmake" / "mlx.cmake").read_text())[1]


def metadata():
    mlx = mlx_version()
    lines = ["Metadata-Version: 2.4", "Name: mlxbench", f"Version: {version()}",
             "Summary: How fast do large language models run on this machine? A benchmark for MLX's models, without Python",
             "License-Expression: MIT AND BSD-3-Clause AND Unicode-DFS-2015",
             *(f"License-File: {name}.txt" for name in LICENCES), "Requires-Python: >=3.9",
             "Classifier: Operating System :: MacOS", "Classifier: Operating System :: POSIX :: Linux",
             f"Requires-Dist: mlx-metal=={mlx}; platform_system == 'Darwin' and platform_machine == 'arm64'"]
    for extra, package in EXTRAS.items():
        lines += [f"Provides-Extra: {extra}", f"Requires-Dist: {package}=={mlx}; platform_system == 'Linux' and extra == '{extra}'"]
    text = (ROOT / "packaging" / "python" / "description.md").read_text()
    return "\n".join([*lines, "Description-Content-Type: text/markdown", "", text])


def contents(folder, module):
    """(path in the wheel, bytes, whether it is a program)"""
    for file in sorted((ROOT / "packaging" / "python" / "mlxbench").glob("*.py")):
        yield f"mlxbench/{file.name}", file.read_bytes(), False
    yield "mlxbench/bin/mlxbench", (folder / "mlxbench").read_bytes(), True
    if module:
        yield f"mlxbench/lib/mlxbench/{module.name}", module.read_bytes(), True
    for file in sorted((ROOT / "share" / "presets").glob("*.json")):
        yield f"mlxbench/share/mlxbench/presets/{file.name}", file.read_bytes(), False


def info(tag):
    yield "METADATA", metadata()
    yield "WHEEL", f"Wheel-Version: 1.0\nGenerator: mlxbench\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n"
    yield "entry_points.txt", "[console_scripts]\nmlxbench = mlxbench:main\n"
    for name, file in LICENCES.items():
        yield f"licenses/{name}.txt", file.read_text()


def add(wheel, path, data, is_program=False):
    entry = ZipInfo(path, (2020, 1, 1, 0, 0, 0))  # one date, so that the same files make the same wheel
    entry.external_attr = (0o100755 if is_program else 0o100644) << 16
    wheel.writestr(entry, data, ZIP_DEFLATED)


def main():
    tag, folder, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    module = pathlib.Path(sys.argv[4]) if len(sys.argv) > 4 else None
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"mlxbench-{version()}-py3-none-{tag}.whl"
    path.unlink(missing_ok=True)
    with WheelFile(path, "w") as wheel:
        for name, data, is_program in contents(folder, module):
            add(wheel, name, data, is_program)
        for name, text in info(tag):
            add(wheel, f"mlxbench-{version()}.dist-info/{name}", text)
    print(path)


if __name__ == "__main__":
    main()
