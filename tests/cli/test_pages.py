"""The man page and the completions: each option of --help all is in them, and the shells take them."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts" / "pages.py"


@pytest.fixture(scope="module")
def pages(mlxbench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run([sys.executable, SCRIPT, mlxbench, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def options(run):
    """Of each command, by a reading of --help that is not the script's."""
    listed = re.search(r"\ncommands:\n(.*?)\n\n", run("--help", check=True).stdout, re.S)[1]
    commands = [line.split()[0] for line in listed.splitlines()]
    return {command: set(re.findall(r"^  (?:-\w+, )?(--[a-z0-9-]+)", run(command, "--help", "all", check=True).stdout, re.M))
            for command in commands}


def complete(pages, *line):
    """What bash offers for the last word of a line."""
    code = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mlxbench; printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", code, "bash", pages / "mlxbench.bash", *line], capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(done.stdout.split())


def test_bash(pages, options):
    assert complete(pages, "mlxbench", "") == set(options)
    assert complete(pages, "mlxbench", "gen") == {"generate"}
    for command, names in options.items():
        assert "--help" in names
        assert complete(pages, "mlxbench", command, "--") == names | {"--version"}
    assert complete(pages, "mlxbench", "--") == options["bench"] | {"--version"}
    assert complete(pages, "mlxbench", "bench", "--model", "x") == set()


def test_man(pages, options):
    text = (pages / "mlxbench.1").read_text().replace("\\-", "-")
    for command, names in options.items():
        section = text.split(f"\n.SH {command.upper()}\n")[1].split("\n.SH ")[0]
        assert names == set(re.findall(r"\\fB(--[a-z0-9-]+)\\fR", section))
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", pages / "mlxbench.1"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("shell, page", [("zsh", "_mlxbench"), ("fish", "mlxbench.fish")])
def test_other_shells(pages, options, shell, page):
    text = (pages / page).read_text()
    for name in set.union(*options.values()):
        assert (f"*{name}[" if shell == "zsh" else f"-l {name[2:]} ") in text
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert subprocess.run([shell, "-n", pages / page], capture_output=True).returncode == 0
