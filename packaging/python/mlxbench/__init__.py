"""The program mlxbench, as `pip install mlxbench` brings it. Python only starts it."""

import importlib.util
import os
import pathlib
import sys

PROGRAM = pathlib.Path(__file__).resolve().parent / "bin" / "mlxbench"


def mlx_folders():
    """Where MLX's wheel has its library. The engine finds it beside this package; but not where an installer linked
    to files that it keeps elsewhere (uv, link mode symlink), or where MLX is in another folder of this Python."""
    spec = importlib.util.find_spec("mlx")
    places = (spec.submodule_search_locations if spec else None) or ()
    return [str(folder) for folder in (pathlib.Path(place) / "lib" for place in places) if folder.is_dir()]


def main():
    variable = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
    folders = mlx_folders() + [folder for folder in [os.environ.get(variable)] if folder]
    if folders:
        os.environ[variable] = os.pathsep.join(folders)
    os.execv(PROGRAM, [str(PROGRAM), *sys.argv[1:]])
