"""`mlxbench history` against scipy: where a speed changed over time, and how often that errs."""

import importlib.util
import itertools
import json
import pathlib
import sqlite3

import numpy as np
import pytest
import scipy.stats

COLUMNS = ["run", "configuration", "model", "n_prompt", "measured_at", "quality", "engine_version", "prompt_tps"]


@pytest.fixture
def history(run, tmp_path):
    """history([series...]) -> the trends as json has them: a configuration for each series, one run a measurement."""
    file = tmp_path / "history.sqlite"

    def history(all_series, qualities=None, versions=None):
        file.unlink(missing_ok=True)
        database = sqlite3.connect(file)
        database.execute(f"CREATE TABLE runs ({', '.join(COLUMNS)})")
        number = 0
        for i, series in enumerate(all_series):
            for k, x in enumerate(series):
                number += 1
                time = f"2026-{1 + k // 28:02}-{1 + k % 28:02}T00:00:00Z"
                row = (number, number, "a", i + 1, time, qualities[k] if qualities else "A", versions[k] if versions else "1", float(x))
                database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        database.commit()
        database.close()
        return json.loads(run("history", "--db", file, "-f", "json", check=True).stdout)

    return history


def distances(x):
    """Mann and Whitney's standardized statistic for each place."""
    n = len(x)
    ranks = scipy.stats.rankdata(x)
    return np.array([abs(ranks[:t].sum() - t * (n + 1) / 2) / np.sqrt(t * (n - t) * (n + 1) / 12) for t in range(1, n)])


def share_as_far(x, orders):
    """Of the orders [m, n] of x's ranks, those whose largest distance is at least that of x."""
    found, n, t = distances(x).max() - 1e-9, len(x), np.arange(1, len(x))
    sums = np.cumsum(orders, axis=1)[:, :-1]
    return np.mean((np.abs(sums - t * (n + 1) / 2) / np.sqrt(t * (n - t) * (n + 1) / 12)).max(axis=1) >= found)


def exact_p(x):
    """Over all orders, for a few numbers."""
    return share_as_far(x, np.array(list(itertools.permutations(scipy.stats.rankdata(x)))))


def sampled_p(x, rng):
    ranks = scipy.stats.rankdata(x)
    return share_as_far(x, np.array([rng.permutation(ranks) for _ in range(20000)]))


def test_the_statistic_is_mann_whitneys():
    """The oracle of this file against scipy's own."""
    rng = np.random.default_rng(1)
    x = rng.permutation(30).astype(float)
    for t in range(1, 30):
        u = scipy.stats.mannwhitneyu(x[:t], x[t:]).statistic
        z = abs(u - t * (30 - t) / 2) / np.sqrt(t * (30 - t) * 31 / 12)
        assert distances(x)[t - 1] == pytest.approx(z)


def check(found, x, p):
    changes = found[0]["changes"]
    tolerance = 4 * np.sqrt(p * (1 - p) / 9999) + 2e-4
    if p < 0.05 - tolerance:
        assert changes and changes[0]["metric"] == "prompt_tps"
        at = changes[0]["measurement"] - 1
        if len(changes) == 1:
            assert distances(x)[at - 1] == pytest.approx(distances(x).max())
            assert changes[0]["p"] == pytest.approx(p, abs=tolerance)
            assert changes[0]["ratio"] == pytest.approx(np.median(x[at:]) / np.median(x[:at]), abs=2e-6)
    elif p > 0.05 + tolerance:
        assert not changes


def test_few_numbers_exactly(history):
    for x in ([1, 2, 3, 4, 11, 12, 13, 14], [1, 2, 3, 11, 4, 12, 13, 14], [5, 1, 2, 3, 4, 6, 7, 8], [1, 1, 1, 1, 2, 2, 2, 2],
              [9, 8, 9, 8, 9, 8, 9, 8], [1, 2, 3]):
        x = np.array(x, float)
        check(history([x]), x, exact_p(x) if len(x) > 3 else 1.0)


def test_random_numbers(history):
    rng = np.random.default_rng(2)
    for i in range(30):
        n = int(rng.integers(9, 40))
        x = np.round(rng.lognormal(5, 0.02, n), 3)
        x[int(rng.integers(1, n)):] *= rng.choice([1, 1.01, 1.03, 0.97])
        x = np.round(x, 3 if i % 2 else 0)  # with ties, too
        check(history([x]), x, sampled_p(x, rng))


def test_where_nothing_changed(history):
    """One configuration, and a table of 25, in which one wrong change among all is to have a probability of 5 %."""
    rng = np.random.default_rng(3)
    wrong = sum(bool(history([rng.lognormal(5, 0.03, 14)])[0]["changes"]) for _ in range(200))
    assert wrong / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    wrong = sum(any(t["changes"] for t in history(rng.lognormal(5, 0.03, (25, 14)))) for _ in range(40))
    assert wrong / 40 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)


def test_a_planted_change_is_found(history):
    """3 % with a noise of 1 %: nearly always, and most often at the very place or beside it."""
    rng = np.random.default_rng(4)
    places = []
    for _ in range(100):
        x = rng.lognormal(5, 0.01, 20)
        x[12:] *= 0.97
        places += [c["measurement"] for c in history([x])[0]["changes"]]
    assert 99 <= len(places) <= 110
    assert sum(abs(place - 13) <= 1 for place in places) >= 90


def test_two_changes(history):
    rng = np.random.default_rng(5)
    x = rng.lognormal(5, 0.01, 45)
    x[15:] *= 0.9
    x[30:] *= 1.2
    found = history([x])[0]["changes"]
    assert [c["measurement"] for c in found] == [16, 31]
    assert [c["ratio"] for c in found] == pytest.approx([0.9, 1.2], abs=0.02)


def test_one_number_that_is_far_off_is_no_change(history):
    x = np.random.default_rng(6).lognormal(5, 0.01, 30)
    x[-1] *= 0.5
    assert not history([x])[0]["changes"]


def test_disturbed_measurements_are_not_asked(history):
    x = np.concatenate([np.full(10, 200.0), np.full(10, 100.0)]) + np.arange(20) % 3
    assert history([x], ["A", "B"] * 5 + ["C"] * 10)[0]["changes"]
    assert not history([x], ["A"] * 10 + ["F", "D"] * 5)[0]["changes"]


# ---- the table of docs/statistics.md ----

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def script():
    """bench/statistics.py, which makes the table."""
    spec = importlib.util.spec_from_file_location("bench_statistics", ROOT / "bench/statistics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented():
    """The table's lines: what was simulated, and the shares."""
    text = (ROOT / "docs/statistics.md").read_text().split("## How often a history errs")[1].split("\n\n")[1]
    for line in text.splitlines()[2:]:
        n, times, kind, noise, change, *shares = (cell.strip() for cell in line.strip("|").split("|"))
        size, after = change.replace("%", "").split(" after ") if change != "none" else (0, 0)
        yield (int(n), int(times), kind, float(noise[:-1]) / 100, float(size) / 100, int(after)), [
            float(share[:-1]) / 100 if share else None for share in shares]


@pytest.mark.parametrize("line", range(13))
def test_documented_rates(mlxbench, tmp_path, line):
    """With other numbers than the table was made of, and fewer."""
    lines, n = list(documented()), 60
    assert [case for case, _ in lines] == script().HISTORIES
    case, shares = lines[line]
    found = script().histories(mlxbench, tmp_path, 100 + line, *case, simulated=n)
    for share, again in zip(shares, found):
        if share is not None:
            assert abs(again - share) <= 4 * np.sqrt(share * (1 - share) / n) + 2 / n
    if case[2] == "independent" and not case[4]:
        assert shares[0] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
