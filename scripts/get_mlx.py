"""Gets MLX for this machine: the wheel with the backend it can use, in the version that cmake/mlx.cmake names.

usage: get_mlx.py FOLDER                  installs the backend's wheel there, unless CMake would find MLX already
       get_mlx.py --requirement [KIND]    prints what pip installs for Python: "mlx[cpu]==0.32.4"; KIND as cpu, cuda13

A native program needs the backend's wheel alone: it has the library and its headers. Ends with 1, after one line that
says why, where it cannot be had; mlxbench is built without the engine mlx then.
"""

import ctypes
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = {"cpu": "mlx-cpu", "cuda12": "mlx-cuda-12", "cuda13": "mlx-cuda-13", "metal": "mlx-metal"}
# What MLX's installation page asks for: driver 580 for its CUDA 13 wheel, 550.54.14 (which brought
# CUDA 12.4) for its CUDA 12 wheel, and compute capability 7.5.
CUDA_13, CUDA_12, CAPABILITY = 13000, 12040, 75
# cuda.h's numbers of the two halves of the compute capability.
MAJOR, MINOR = 75, 76


def wanted_version():
    return re.search(r"set\(MLX_VERSION ([0-9.]+)\)", (ROOT / "cmake" / "mlx.cmake").read_text())[1]


def nvidia_gpu():
    """(newest CUDA the driver runs, as 12040; compute capability, as 90) of the first NVIDIA GPU; None without one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, device, major, minor = (ctypes.c_int() for _ in range(4))
    failed = (cuda.cuInit(0) or cuda.cuDriverGetVersion(ctypes.byref(version)) or
              cuda.cuDeviceGet(ctypes.byref(device), 0) or
              cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device) or
              cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device))
    return None if failed else (version.value, 10 * major.value + minor.value)


def choose(system, machine, gpu):
    """(key of PACKAGES, or None where MLX has no wheel; what to say about it, or "")."""
    if system == "Darwin":
        return ("metal", "") if machine == "arm64" else (None, "MLX's wheels need an Apple processor")
    if not gpu:
        return "cpu", ""
    version, capability = gpu
    if capability < CAPABILITY:
        return "cpu", f"the GPU's compute capability {capability / 10} is below MLX's 7.5, so MLX gets the CPU"
    if version < CUDA_12:
        return "cpu", "the NVIDIA driver is older than MLX's CUDA wheels need (550.54.14), so MLX gets the CPU"
    return ("cuda13" if version >= CUDA_13 else "cuda12"), ""


def version_in(folder):
    """Of the headers in folder; "" without any."""
    file = pathlib.Path(folder) / "include" / "mlx" / "version.h"
    text = file.read_text() if file.exists() else ""
    return ".".join(re.findall(r"#define MLX_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text))


def places():
    """Where cmake/mlx.cmake looks."""
    for python in (ROOT / ".venv" / "bin" / "python", "python3"):
        try:
            done = subprocess.run([python, "-m", "mlx", "--cmake-dir"], capture_output=True, text=True)
        except OSError:
            continue
        if done.returncode == 0:
            yield done.stdout.strip()
    yield from (ROOT / ".mlx" / "mlx", "/opt/homebrew", "/usr/local")


def install(kind, version, folder):
    """Why pip could not; "" when it could."""
    package = f"{PACKAGES[kind]}=={version}"
    if os.environ.get("NO_INSTALL"):
        return f"to install it: {sys.executable} -m pip install --target {folder} {package}"
    print(f"mlxbench: getting MLX ({package})", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
               "--only-binary=:all:", "--retries", "2", "--upgrade", "--target", folder, package]
    # The wheel's library and headers are used, not its Python: any Python can unpack it (Apple's is
    # 3.9).
    command.append("--ignore-requires-python")
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return ""
    return f"pip could not install {package}: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1]}"


def main():
    version = wanted_version()
    kind, remark = choose(platform.system(), platform.machine(), nvidia_gpu())
    if sys.argv[1] == "--requirement":
        extra = f"[{(sys.argv[2:] or [kind])[0]}]" if platform.system() == "Linux" else ""
        print(f"mlx{extra}=={version}")
        return 0
    if any(version_in(place) == version for place in places()):
        return 0
    problem = install(kind, version, sys.argv[1]) if kind else remark
    if kind and remark:
        print(f"mlxbench: {remark}", file=sys.stderr)
    if problem:
        print(f"mlxbench: the engine mlx is left out: {problem}", file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
