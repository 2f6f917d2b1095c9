"""`mlxbench selftest` on an engine whose times follow a script, and on this machine."""

import re

import pytest

MS = 1_000_000


@pytest.fixture
def selftest(run, good_folder, tmp_path):
    def selftest(lines, *arguments):
        (tmp_path / "script").write_text("".join(f"{p} {t}\n" for p, t in lines))
        return run("selftest", "-m", good_folder, "--engine", "fake", *arguments,
                   env={"MLXBENCH_FAKE_SCRIPT": str(tmp_path / "script")}, check=True).stdout

    return selftest


def floors(text):
    return {name: float(floor) for name, floor in
            re.findall(r"^  (\w+) .* a difference below ([\d.]+) % is noise$", text, re.M)}


def test_a_steady_machine_has_no_noise(selftest):
    text = selftest([(MS, MS)])
    assert floors(text) == {"prompt_tps": 0, "generation_tps": 0, "ttft_ms": 0}
    assert "mlxbench: 1000.0 us per token" in text and "10 + 10 runs" in text
    assert text.count("A/A +0.00 %, p = 1.00") == 3


def test_noise_is_found(selftest):
    """Half of the runs take 4 % longer: what two equal sides may differ by lies below that, but not far."""
    text = selftest([(MS, MS + 40_000 * (i * 7 % 5 < 2)) for i in range(100)], "-r", 20)
    assert 0.5 < floors(text)["generation_tps"] <= 4.1
    assert "20 + 20 runs" in text


def test_few_runs(selftest):
    assert len(floors(selftest([(MS, MS)], "-r", 4))) == 3


def test_on_this_machine(run):
    text = run("selftest", "-np", 8, "-n", 8, "-r", 4, "--engine", "cpu", check=True).stdout
    assert re.search(r"^clock: a look takes \d+ ns, the smallest step is \d+ ns$", text, re.M)
    assert re.search(r"^mlxbench: \d+\.\d us per token", text, re.M)
    assert re.search(r"^machine: quality [ABCDF]$", text, re.M)


@pytest.mark.parametrize("arguments, word", [(["-r", "3"], "--repeats"), (["-np", "8,9"], "--n-prompt"), (["x"], "x")])
def test_refused(fails, arguments, word):
    fails(2, [word], "selftest", *arguments)
