"""Documents and comments are at most 100 columns wide, but for tables, addresses and code."""

import importlib.util
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_no_line_is_too_wide():
    done = subprocess.run([sys.executable, ROOT / "scripts/wrap.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_too_wide_is_found(tmp_path):
    """In a repository of its own: a comment and a paragraph of 101 columns, and what may be as wide."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/wrap.py").write_text((ROOT / "scripts/wrap.py").read_text())
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    wide = "word " * 19 + "words"  # 100 columns
    (tmp_path / "a.c").write_text(f"/* {wide} */\nint a; /* {wide} */\n")
    (tmp_path / "b.md").write_text(f"{wide}\n\n{wide}s\n\n| {wide} |\n\n    {wide}\n")
    command = [sys.executable, tmp_path / "scripts/wrap.py"]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 1
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == ["a.c:1:", "b.md:3:"]
    subprocess.run(command, capture_output=True)
    lines = (tmp_path / "a.c").read_text().splitlines()
    assert lines[:2] == ["/* " + "word " * 18 + "word", " * words */"] and lines[2].startswith("int a;")


def test_what_a_benchmark_writes_is_narrow(tmp_path):
    """bench/report.py puts sentences of any length into a document; a table stays as it is."""
    spec = importlib.util.spec_from_file_location("report", ROOT / "bench/report.py")
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    (tmp_path / "performance.md").write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    table = "| " + "a cell | " * 20
    report.write(tmp_path, "bench", "\n".join(["word " * 60, "", table]))
    before, begin, first, second, third, blank, row, end, after = (tmp_path / "performance.md").read_text().splitlines()
    assert (before, begin, blank, row, end, after) == (
        "before", "<!-- bench: begin -->", "", table, "<!-- bench: end -->", "after")
    assert max(map(len, [first, second, third])) <= 100 and " ".join([first, second, third]).split() == ["word"] * 60
