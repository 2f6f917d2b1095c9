"""How often and in which order configurations run, on an engine whose times follow a script."""

import json
import re

import numpy as np
import pytest
import scipy.stats
from rows import runs_of

MS = 1_000_000


@pytest.fixture
def scripted(run, good_folder, tmp_path):
    """scripted(lines, arguments) -> the program, ended well. A line is a run's prompt_ns, token_ns and a word; the last
    one holds for all that follow."""

    def scripted(lines, *arguments, check=True):
        (tmp_path / "script").write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
        return run("bench", "-m", good_folder, "--engine", "fake", "--prompt-tokens", "random", "-np", 9, "-n", 11, "-o",
                   "jsonl", *arguments, env={"MLXBENCH_FAKE_SCRIPT": str(tmp_path / "script")}, check=check)

    return scripted


def speeds(rows):
    return [row["generation_tps"] for row in rows]


def test_script_is_the_clock(scripted):
    row, = runs_of(scripted([(2 * MS, 5 * MS)], "--warmup", 0).stdout)
    assert row["ttft_ms"] == pytest.approx(8 * 2 + 5)
    assert row["generation_tps"] == pytest.approx(200)
    row, = runs_of(scripted([(MS, MS, 1000)], "--warmup", 0).stdout)
    gaps = np.diff(row["token_ns"])
    assert list(gaps) == [MS + 1000 * position for position in range(9, 19)]


def test_times_of_tokens_are_numpys(scripted):
    """Percentiles by rank, stalls, and the line through the times of tokens by what is in the cache."""
    for depth, line in [(0, (MS, 5 * MS, 3000)), (50, (MS, MS, 700)), (0, (MS, MS, 0))]:
        row, = runs_of(scripted([line], "--warmup", 0, "-n", 40, "-d", depth).stdout)
        gaps = np.diff(row["token_ns"]) / 1e6
        for name, q in [("itl_p50_ms", 50), ("itl_p90_ms", 90), ("itl_p99_ms", 99), ("itl_max_ms", 100)]:
            assert row[name] == pytest.approx(np.percentile(gaps, q, method="inverted_cdf"), abs=6e-4)
        assert row["stalls"] == np.sum(gaps > 2 * np.percentile(gaps, 50, method="inverted_cdf"))
        entries = depth + 9 + np.arange(1, 40)
        assert row["itl_per_1000_ms"] == pytest.approx(line[2] / 1000, abs=1e-4)
        if line[2]:
            fit = scipy.stats.linregress(entries, gaps)
            assert row["itl_at_0_ms"] == pytest.approx(fit.intercept, abs=1e-3)
            assert row["itl_fit_r2"] == pytest.approx(fit.rvalue**2, abs=1e-3) == 1
        else:
            assert row["itl_fit_r2"] is None


def test_noisy_times_of_tokens_are_numpys(run, good_folder):
    for row in runs_of(run("bench", "-m", good_folder, "--engine", "cpu", "-t", 1, "-np", 8, "-n", 200, "-r", 3, "-d", 7,
                           "--prompt-tokens", "random", "-o", "jsonl", check=True).stdout):
        gaps = np.diff(row["token_ns"]) / 1e6
        fit = scipy.stats.linregress(7 + 8 + np.arange(1, 200), gaps)
        assert row["itl_at_0_ms"] == pytest.approx(fit.intercept, abs=6e-5)
        assert row["itl_per_1000_ms"] == pytest.approx(1000 * fit.slope, abs=6e-5)
        assert row["itl_fit_r2"] == pytest.approx(fit.rvalue**2, abs=6e-5)
        assert row["stalls"] == np.sum(gaps > 2 * np.percentile(gaps, 50, method="inverted_cdf"))


def test_warmup_until_two_runs_agree(scripted):
    lines = [(MS, ns * MS) for ns in (9, 7, 6)] + [(MS, int(5.95 * MS)), (MS, 5 * MS)]
    rows = runs_of(scripted(lines, "-r", 2).stdout)
    assert [row["warmup"] for row in rows] == [4, 4]
    assert speeds(rows) == [200, 200]
    rows = runs_of(scripted([(MS, n * MS) for n in range(1, 9)]).stdout)
    assert [row["warmup"] for row in rows] == [5] and speeds(rows) == [pytest.approx(1000 / 6, abs=1e-3)]
    rows = runs_of(scripted(lines, "--warmup", 1).stdout)
    assert [row["warmup"] for row in rows] == [1] and speeds(rows) == [pytest.approx(1000 / 7, abs=1e-3)]


def median_interval(x):
    """Its width over the median: scipy's interval, the inverse of the sign test."""
    found = scipy.stats.quantile_test(x, q=0, p=0.5).confidence_interval(0.95)
    return (found.high - found.low) / np.median(x)


def test_repeats_until_precise(scripted):
    quiet = [(MS, MS)] * 2 + [(MS, MS + 2000 * (i % 3)) for i in range(100)]
    assert len(runs_of(scripted(quiet, "-r", "auto").stdout)) == 6
    loud = [(MS, MS)] * 2 + [(MS, MS + 10000 * (i % 2)) for i in range(8)] + [(MS, MS)]
    done = scripted(loud, "-r", "auto", "--precision", "0.5%")
    rows = runs_of(done.stdout)
    assert 6 < len(rows) <= 20 and done.stderr == ""
    assert median_interval(speeds(rows)) <= 0.005 < median_interval(speeds(rows)[:-1])


def test_repeats_end_with_their_time(scripted):
    """A run takes 20 to 30 ms; after a second it ends, and says what it did not reach."""
    lines = [(MS, (1 + i % 2) * MS) for i in range(100)]
    done = scripted(lines, "-r", "auto", "--time-limit", "1s", "--warmup", 1)
    rows = runs_of(done.stdout)
    times = [(row["token_ns"][-1] - row["start_ns"]) / 1e9 for row in rows]
    assert sum(times) >= 1 and sum(times[:-1]) < 1
    assert re.search(r"configuration 1: after \d+ runs the interval of prompt_tps is .* % wide, not 1 %", done.stderr)
    assert len(runs_of(scripted(lines, "-r", "auto", "--time-limit", "1ms").stdout)) == 6


def test_interval_of_auto_has_the_median(scripted):
    """Though it stops when the interval is narrow: of 400 configurations at least 92 %; docs/statistics.md has more."""
    rng = np.random.default_rng(7)
    lines = [(MS, round(MS * x)) for x in rng.lognormal(0, 0.01, 40_000)]
    done = scripted(lines, "-n", 3, "-r", "auto", "--precision", "2%", "--warmup", 1, "-pss", "100-499", "--order", "given")
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"kind": "summary"')]
    spreads = [row["spreads"]["generation_tps"] for row in found]
    covered = sum(s["low"] <= 1000 <= s["high"] for s in spreads)
    assert len(spreads) == 400
    assert scipy.stats.binomtest(covered, 400, 0.92, alternative="less").pvalue > 1e-3
    assert all(s["high"] - s["low"] <= 0.02 * s["median"] for s in spreads)


def test_delay(scripted):
    for delay in ("3s", "3000ms", "3", "0.05m"):
        first, second = runs_of(scripted([(MS, MS)], "-r", 2, "--delay", delay).stdout)
        assert second["start_ns"] - first["token_ns"][-1] == 3_000_000_000


def test_idle_before_measured_runs(scripted):
    """A parameter: with and without in turn. Unmeasured runs need no rest."""
    rows = runs_of(scripted([(MS, MS)], "-r", 4, "--idle", "none,90s", "--warmup", 2).stdout)
    assert sorted(row["idle_s"] or 0 for row in rows) == [0] * 4 + [90] * 4
    for before, row in zip(rows, rows[1:]):
        warm = 2 * 19 * MS if row["repeat"] == 1 else 0
        assert row["start_ns"] - before["token_ns"][-1] == (90_000_000_000 if row["idle_s"] else 0) + warm
    minutes, = runs_of(scripted([(MS, MS)], "--idle", "2m").stdout)
    assert minutes["idle_s"] == 120


def table_of(text):
    """The lines of the one table in a text, as lists of cells."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in [lines[0], *lines[2:]]]


def test_duration_shows_throttling(scripted, tmp_path):
    """Run after run for a minute, slower from the thirtieth second on; windows are tenths."""
    lines = [(MS, 50 * MS + i % 3 * MS // 10) for i in range(59)] + [(MS, 100 * MS + i % 3 * MS // 10) for i in range(99)]
    done = scripted(lines, "--duration", "1m", "--warmup", 1, "-np", "9,10", "-o", f"csv:{tmp_path}/out")
    rows = runs_of(done.stdout)
    first = [row for row in rows if row["configuration"] == 1]
    began = np.array([row["start_ns"] - first[0]["start_ns"] for row in first])
    ended = np.array([row["token_ns"][-1] - first[0]["start_ns"] for row in first])
    assert ended[-1] >= 60_000_000_000 > began[-1] and began[1:].tolist() == ended[:-1].tolist()
    assert [row["window"] for row in first] == (1 + began // 6_000_000_000).tolist()
    assert order_of(rows) == sorted(order_of(rows)) and {row["order"] for row in rows} == {"given"}
    names, *table = table_of(done.stderr)
    assert names == ["configuration", "window", "runs", "prompt_tps", "change", "generation_tps", "change", "quality"]
    assert [(int(line[0]), int(line[1])) for line in table] == [(c, w) for c in (1, 2) for w in range(1, 11)]
    for line in table[:10]:
        there = [row for row in first if row["window"] == int(line[1])]
        medians = [np.median([row[c] for row in there]) for c in ("prompt_tps", "generation_tps")]
        start = np.median([row["generation_tps"] for row in first if row["window"] == 1])
        assert int(line[2]) == len(there)
        assert [float(line[3]), float(line[5])] == pytest.approx(medians, abs=1e-3)
        assert float(line[6].rstrip(" %")) == pytest.approx(100 * (medians[1] / start - 1), abs=0.06)
    assert float(table[0][6].rstrip(" %")) == 0 and float(table[9][6].rstrip(" %")) == pytest.approx(-50, abs=0.2)
    one, = runs_of(scripted([(MS, MS)], "--duration", "1ms", "--warmup", 0).stdout)  # not cut
    assert one["window"] == 1


def order_of(rows):
    return [row["configuration"] for row in rows]


def test_order_is_random_and_repeatable(scripted):
    def order(*arguments):
        return order_of(runs_of(scripted([(MS, MS)], "-np", "9,10,11,12", "-r", 5, *arguments).stdout))

    seen = order()
    rounds = [seen[i:i + 4] for i in range(0, 20, 4)]
    assert all(sorted(r) == [1, 2, 3, 4] for r in rounds)  # each once before one has its next
    assert len({tuple(r) for r in rounds}) > 1
    assert seen == order("--seed", 0) != order("--seed", 1)
    assert order("--order", "given") == sorted(seen)


def test_one_run_each_stays_in_order(scripted):
    rows = runs_of(scripted([(MS, MS)], "-np", "9,10,11,12").stdout)
    assert order_of(rows) == [1, 2, 3, 4] and {row["order"] for row in rows} == {"given"}


def test_order_of_the_table(scripted, run, tmp_path):
    """Lines of configurations come in the plan's order, now and from a file."""
    done = scripted([(MS, MS)], "-np", "9,10,11,12", "-r", 7, "-o", f"md:{tmp_path}/md", "-o", f"json:{tmp_path}/json")
    table = (tmp_path / "md").read_text()
    assert re.findall(r"\| +(\d+) \| +\d+\.\d+ \| .* to ", table) == ["9", "10", "11", "12"]
    assert {row["order"] for row in runs_of(done.stdout)} == {"random"}
    assert run("report", tmp_path / "json", "-o", "md", check=True).stdout == table


def test_random_order_with_depth(scripted):
    """The depth is filled once for four runs."""
    rows = runs_of(scripted([(MS, MS)], "-np", "9,10", "-d", 20, "-r", 8).stdout)
    turns = [order_of(rows)[i:i + 4] for i in range(0, 16, 4)]
    assert all(len(set(turn)) == 1 for turn in turns) and {turn[0] for turn in turns[:2]} == {1, 2}


def test_failure_in_turn(scripted):
    """It ends its own configuration; what was measured stays, and the others go on."""
    done = scripted([(MS, MS)] * 12 + [(MS, MS, "fail")] + [(MS, MS)], "-np", "9,10,11", "-r", 4, check=False)
    assert done.returncode == 1 and "1 of 3 configurations failed" in done.stderr
    rows = runs_of(done.stdout)
    failed, = [row for row in rows if row["error"]]
    counts = [sum(row["configuration"] == c and not row["error"] for row in rows) for c in (1, 2, 3)]
    assert sorted(counts)[1:] == [4, 4] and counts[failed["configuration"] - 1] < 4


def test_drift_is_said(scripted):
    """2 x (2 + 7) runs, then the first configuration three times more."""
    steady = [(MS, MS + 500 * i) for i in range(18)]  # noise of 1 %
    slow = scripted([*steady, (MS, int(1.06 * MS))], "-np", "9,10", "-r", 7).stderr
    assert re.search(r"machine changed meanwhile: .* [45]\.\d % less generation speed than before \(3 runs, p = 0.017\)", slow)
    assert "prompt speed" not in slow
    assert scripted([*steady, (MS, MS + 4000)], "-np", "9,10", "-r", 7).stderr == ""
    assert scripted([*steady, (MS, 2 * MS)], "-np", "9", "-r", 7).stderr == ""  # there was nothing else


def test_against_a_file(scripted, run, tmp_path):
    """The comparison that `compare` makes of the same two files, and its exit code."""
    noise = [(MS, MS + 1000 * (i % 4)) for i in range(9)]
    slow = [(MS, int(1.1 * MS) + 1000 * (i % 4)) for i in range(9)]
    old, new = tmp_path / "old", tmp_path / "new"
    scripted(noise, "-r", 7, "-o", f"csv:{old}")
    quiet = old.read_text().replace(",C,", ",A,").replace(",D,", ",A,").replace(",F,", ",A,")
    old.write_text(quiet)
    done = scripted(slow, "-r", 7, "--against", old, "-o", f"csv:{new}")
    table = run("compare", old, new, check=True).stdout
    assert done.stderr.split("\n\n", 1)[1] == table.split("\n\n", 1)[1]  # jsonl has standard output
    assert re.search(r"generation_tps .* -9\.\d %", table)
    assert scripted(noise, "-r", 7, "--against", old, "--fail-slower", "3%").returncode == 0
    done = scripted(slow, "-r", 7, "--against", old, "--fail-slower", "3%", check=False)
    assert done.returncode == (3 if "not comparable" not in done.stderr else 0), done.stderr


def test_against_needs_a_file(fails, good_folder, tmp_path):
    fails(2, ["--against"], "-m", good_folder, "--engine", "fake", "--fail-slower", "3%")
    fails(1, ["nonesuch"], "-m", good_folder, "--engine", "fake", "--against", tmp_path / "nonesuch")


@pytest.mark.parametrize("arguments, words", [
    (["-r", "0"], ["--repeats", "1 to 1000000"]), (["-r", "automatic"], ["--repeats"]), (["--warmup", "x"], ["--warmup"]),
    (["--precision", "x%"], ["--precision", "percentage"]), (["--time-limit", "2 days"], ["--time-limit", "duration"]),
    (["--delay", "-1s"], ["--delay", "duration"]), (["--order", "alphabetic"], ["--order", "random,given"]),
    (["--require-quality", "E"], ["--require-quality", "A,B,C,D"]),
    (["--idle", "1.5s"], ["--idle", "whole seconds"]), (["--idle", "none,-3"], ["--idle"]), (["--idle", "99h"], ["--idle"]),
    (["--duration", "0"], ["--duration"]), (["--duration", "5m", "-r", "3"], ["--duration", "--repeats"]),
    (["--duration", "5m", "--require-quality", "B"], ["--duration", "--require-quality"]),
    (["--delay", "1e9h"], ["--delay"]), (["--delay", "nan"], ["--delay"]), (["--delay", ""], ["--delay"]),
])
def test_wrong_options(fails, good_folder, arguments, words):
    fails(2, words, "-m", good_folder, "--engine", "fake", *arguments)
