"""Statistics of repeats against numpy and scipy, through files: csv in, the json that `report` makes of it out."""

import csv
import json

import numpy as np
import pytest
import scipy.stats

# Decimals of the metric, and of its spread in json.
DECIMALS, SPREAD_DECIMALS = 3, 6


@pytest.fixture(scope="module")
def spreads(run, tmp_path_factory):
    """spreads(series) -> for each series of numbers the spread that the program finds."""

    def spreads(*series):
        folder = tmp_path_factory.mktemp("spreads")
        with open(folder / "in.csv", "w") as out:
            lines = csv.writer(out, lineterminator="\n")
            lines.writerow(["run", "configuration", "repeat", "prompt_tps"])
            for configuration, numbers in enumerate(series, 1):
                for repeat, number in enumerate(numbers, 1):
                    lines.writerow([repeat, configuration, repeat, f"{number:.{DECIMALS}f}"])
        run("report", folder / "in.csv", "-o", f"json:{folder}/out.json", check=True)
        summaries = json.loads((folder / "out.json").read_text())["summaries"]
        assert [s["configuration"] for s in summaries] == list(range(1, len(series) + 1))
        return [s["spreads"]["prompt_tps"] for s in summaries]

    return spreads


def interval(x):
    """Order statistics k and n + 1 - k, k the largest with a coverage of at least 95 % (scipy's binomial)."""
    n = len(x)
    ranks = [k for k in range(1, n // 2 + 1) if 2 * scipy.stats.binom.cdf(k - 1, n, 0.5) <= 0.05]
    return (np.sort(x)[ranks[-1] - 1], np.sort(x)[n - ranks[-1]]) if ranks else (None, None)


def outliers(x):
    mad = scipy.stats.median_abs_deviation(x)
    return int(np.sum(np.abs(0.6745 * (x - np.median(x)) / mad) > 3.5)) if mad else 0


def check(found, x):
    x = np.round(np.asarray(x, float), DECIMALS)
    low, high = interval(x)
    assert found["n"] == len(x)
    wanted = dict(median=np.median(x), mean=np.mean(x), min=np.min(x), max=np.max(x))
    if len(x) > 1:
        wanted["sd"] = np.std(x, ddof=1)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=0.51 * 10.0**-SPREAD_DECIMALS, rel=1e-12), name
    assert (found["low"], found["high"]) == (low, high)
    assert found["outliers"] == outliers(x)
    assert len(x) > 1 or found["sd"] is None


FIXED = [[3], [1, 2], [5, 5, 5], [1, 2, 3, 4, 5], [6, 5, 4, 3, 2, 1], [1, 1, 1, 1, 1, 1, 9], [10, 11, 9, 10, 12, 8, 500],
         list(range(100)), [0.001] * 50 + [0.002] * 50, [123456.789] * 7, [1e6, 1e-3, 1, 10, 100, 1000, 10000]]


def test_fixed_numbers(spreads):
    for found, x in zip(spreads(*FIXED), FIXED):
        check(found, x)


def test_random_numbers(spreads):
    rng = np.random.default_rng(1)
    series = [rng.lognormal(5, 1, n) for n in range(1, 40)] + [rng.normal(200, 2, n) for n in (57, 200, 999, 5000)]
    series += [np.round(rng.normal(20, 1, n)) for n in (8, 30)] + [rng.standard_cauchy(n) + 50 for n in (6, 25, 100)]
    for found, x in zip(spreads(*series), series):
        check(found, x)


def test_interval_is_scipys(spreads):
    """scipy's own interval of a median, which inverts the same test."""
    rng = np.random.default_rng(2)
    series = [np.round(rng.normal(100, 5, n), DECIMALS) for n in range(6, 60)]
    for found, x in zip(spreads(*series), series):
        theirs = scipy.stats.quantile_test(x, q=0, p=0.5).confidence_interval(0.95)
        assert (found["low"], found["high"]) == (theirs.low, theirs.high)


def test_interval_covers_the_median(spreads):
    """Of 2,000 samples at least 95 % have the true median in their interval, whatever the distribution."""
    rng = np.random.default_rng(3)
    series = [rng.exponential(100, 11) for _ in range(2000)]
    median = 100 * np.log(2)
    covered = np.mean([found["low"] <= median <= found["high"] for found in spreads(*series)])
    assert scipy.stats.binomtest(round(covered * 2000), 2000, 0.95, alternative="less").pvalue > 1e-4


def test_reports_are_the_same_from_every_format(run, good_statistics):
    folder, names = good_statistics
    texts = {name: run("report", folder / name, "-o", "csv", check=True).stdout for name in names}
    assert len(set(texts.values())) == 1
    assert texts["csv"] == (folder / "csv").read_text()
    tables = {run("report", folder / name, "-o", "md", check=True).stdout for name in names}
    assert len(tables) == 1


@pytest.fixture(scope="module")
def good_statistics(run, tmp_path_factory):
    """A folder with the same results as csv, json and jsonl."""
    folder = tmp_path_factory.mktemp("results")
    names = ["csv", "json", "jsonl"]
    outputs = [part for name in names for part in ("-o", f"{name}:{folder}/{name}")]
    run("--model", "synthetic:tiny-llama-13m-4bit", "--engine", "fake", "-np", "8,16", "-n", 4, "-r", 7, *outputs, check=True)
    return folder, names
