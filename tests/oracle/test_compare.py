"""`mlxbench compare` against scipy: tests by ranks, intervals, adjusted probabilities; and how often it errs."""

import csv
import io
import itertools
import json
import xml.etree.ElementTree

import numpy as np
import pytest
import scipy.stats

METRICS = ["prompt_tps", "generation_tps"]


def write(path, configurations, columns=()):
    """A result file. configurations: for each the numbers of prompt_tps and those of generation_tps."""
    with open(path, "w") as out:
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["run", "configuration", "model", "n_prompt", *[name for name, _ in columns], *METRICS])
        for number, both in enumerate(configurations, 1):
            for pair in itertools.zip_longest(*both):
                cells = ["" if x is None else f"{x:.3f}" for x in pair]
                lines.writerow([1, number, "a", number, *[value for _, value in columns], *cells])
    return path


@pytest.fixture
def compare(run, tmp_path):
    """compare(before, after...) -> the differences, as json has them."""

    def compare(before, *after):
        files = [write(tmp_path / f"{i}.csv", configurations) for i, configurations in enumerate([before, *after])]
        return json.loads(run("compare", *files, "-f", "json", check=True).stdout)

    return compare


def exact_p(a, b):
    """All ways to divide the numbers, ties included."""
    statistic = lambda x, y: scipy.stats.rankdata(np.concatenate([x, y]))[:len(x)].sum()
    return scipy.stats.permutation_test((a, b), statistic, n_resamples=np.inf, alternative="two-sided").pvalue


def shift(a, b):
    """The median of all differences, and those shifts of a that scipy's test does not reject."""
    differences = np.sort(np.subtract.outer(b, a).ravel())
    kept = [d for d in differences if scipy.stats.mannwhitneyu(
        a + np.nextafter(d, np.inf), b, method="exact").pvalue > 0.05 or scipy.stats.mannwhitneyu(
        a + np.nextafter(d, -np.inf), b, method="exact").pvalue > 0.05]
    return np.median(differences), kept[0], kept[-1]


def series(rng, n, change=1.0, noise=0.05):
    return np.round(rng.lognormal(np.log(200 * change), noise, n), 3)


@pytest.mark.parametrize("n_a, n_b", [(1, 1), (2, 3), (3, 3), (4, 4), (5, 9), (7, 7), (12, 6), (20, 20), (30, 70)])
def test_no_ties(compare, n_a, n_b):
    rng = np.random.default_rng(n_a * 100 + n_b)
    for change in (0, 4_000, -10_000):
        a = rng.choice(np.arange(50_000, 90_000, 2), n_a, replace=False) / 1000
        b = (rng.choice(np.arange(50_001, 90_000, 2), n_b, replace=False) + change) / 1000  # odd: none is one of a's
        found = compare([(a, a)], [(b, b)])[0]
        assert found["p"] == pytest.approx(scipy.stats.mannwhitneyu(a, b, method="exact").pvalue, rel=1e-7)
        assert found["ratio"] == pytest.approx(np.median(b) / np.median(a), rel=1e-8)
        assert (found["n_before"], found["n_after"]) == (n_a, n_b)


@pytest.mark.parametrize("n_a, n_b", [(2, 2), (3, 4), (5, 5), (7, 6)])
def test_ties(compare, n_a, n_b):
    rng = np.random.default_rng(n_a * 100 + n_b)
    for _ in range(5):
        a, b = rng.integers(1, 5, n_a).astype(float), rng.integers(1, 6, n_b).astype(float)
        assert compare([(a, a)], [(b, b)])[0]["p"] == pytest.approx(exact_p(a, b), rel=1e-7)


def test_many_numbers(compare):
    rng = np.random.default_rng(5)
    for n_a, n_b, change in [(60, 60, 1.0), (100, 50, 1.02), (300, 400, 0.99)]:
        a, b = np.round(series(rng, n_a), 1), np.round(series(rng, n_b, change), 1)  # with ties
        wanted = scipy.stats.mannwhitneyu(a, b, method="asymptotic", use_continuity=True).pvalue
        assert compare([(a, a)], [(b, b)])[0]["p"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("n_a, n_b", [(4, 4), (5, 7), (8, 8), (12, 9)])
def test_interval_is_what_the_test_does_not_reject(compare, n_a, n_b):
    rng = np.random.default_rng(n_a * 10 + n_b)
    a, b = series(rng, n_a), series(rng, n_b, 1.1)
    found = compare([(a, a)], [(b, b)])[0]
    _, low, high = shift(np.log(a), np.log(b))
    assert np.log([found["low"], found["high"]]) == pytest.approx([low, high], abs=1e-7)


def test_too_few_for_an_interval(compare):
    found = compare([([1, 2, 3], [1, 2, 3])], [([4, 5, 6], [4, 5, 6])])[0]
    assert (found["low"], found["high"], found["verdict"]) == (None, None, "~")


def test_holm_over_the_table(compare):
    """Holm's is the closed test with Bonferroni's: over all sets of hypotheses that contain one."""
    rng = np.random.default_rng(7)
    before = [(series(rng, 8), series(rng, 8)) for _ in range(4)]
    after = [(series(rng, 8, 1 + 0.04 * i), series(rng, 8, 1 - 0.03 * i)) for i in range(4)]
    found = compare(before, after)
    p = [d["p"] for d in found]
    for i, d in enumerate(found):
        sets = [s for k in range(1, 9) for s in itertools.combinations(range(8), k) if i in s]
        assert d["p_holm"] == pytest.approx(min(1, max(len(s) * min(p[j] for j in s) for s in sets)), rel=1e-7)
        assert d["verdict"] == ("~" if d["p_holm"] >= 0.05 else "faster" if d["ratio"] > 1 else "slower")


def test_geometric_mean(run, tmp_path):
    a, b = write(tmp_path / "a", [([100.0], [10.0]), ([200.0], [10.0])]), write(tmp_path / "b", [([110.0], [5.0]), ([100.0], [25.0])])
    lines = [line.split() for line in run("compare", a, b, check=True).stdout.splitlines() if line.startswith("geometric")]
    means = [scipy.stats.gmean(x) for x in ([1.1, 0.5], [0.5, 2.5])]
    assert [line[2:5] for line in lines] == [[metric, f"{100 * (mean - 1):+.1f}", "%"] for metric, mean in zip(METRICS, means)]


# ---- Go's benchstat ----

# ns/op, and what benchstat says of them (golang.org/x/perf, cmd/benchstat/testdata: old.txt,
# new.txt, csvOldNew.stdout)
JSON = ([1726, 1723, 1707, 1707, 1713, 1729, 1736, 1707, 1705, 1774], [1423, 1416, 1411, 1413, 1412, 1426, 1422, 1424, 1447, 1425])
GOB = ([3069, 3075, 3069, 3067, 3207, 3064, 3064, 3058, 3059, 3062], [3075, 3065, 3059, 3065, 3060, 3081, 3186, 3135, 3087, 3062])
# medians with +- %, change, p
BENCHSTAT = [((1718, 1), (1422.5, 1), "-17.20", "0.000"), ((3065.5, 0), (3070, 2), "~", "0.446")]


def test_benchstat_says_the_same(run, compare, tmp_path):
    """Recorded, as benchstat can't be installed everywhere: medians, their intervals, changes and p-values."""
    found = compare(*([(both[side], []) for both in (JSON, GOB)] for side in (0, 1)))
    sides = [json.loads(run("report", tmp_path / f"{i}.csv", "-o", "json", check=True).stdout)["summaries"] for i in (0, 1)]
    for i, (line, (*medians, change, p)) in enumerate(zip(found, BENCHSTAT, strict=True)):
        assert [line["median_before"], line["median_after"]] == [median for median, _ in medians]
        assert f"{line['p']:.3f}" == p and (line["verdict"] == "~") == (change == "~")
        if change != "~":
            assert f"{100 * (line['median_after'] / line['median_before'] - 1):.2f}" == change
        for side, (median, percent) in zip(sides, medians):
            lies = side[i]["spreads"]["prompt_tps"]
            assert round(100 * max(lies["high"] - median, median - lies["low"]) / median) == percent


# ---- how often it errs ----

def rates(compare, rng, n, change, noise):
    """Of 2,000 comparisons of n runs each, the shares that say faster and slower."""
    found = []
    for _ in range(134):
        before = [(series(rng, n, 1, noise), [])]
        found += compare(before, *[[(series(rng, n, change, noise), [])] for _ in range(15)])
    verdicts = [d["verdict"] for d in found]
    assert len(verdicts) == 2010
    return [verdicts.count(word) / len(verdicts) for word in ("faster", "slower")]


def test_nothing_changed(compare):
    faster, slower = rates(compare, np.random.default_rng(11), 7, 1.0, 0.05)
    assert faster <= 0.05 and slower <= 0.05


def test_three_percent_are_found(compare):
    faster, slower = rates(compare, np.random.default_rng(12), 20, 0.97, 0.01)
    assert slower >= 0.95 and faster == 0


# ---- files and formats ----

def test_formats_agree(run, tmp_path):
    rng = np.random.default_rng(3)
    a = write(tmp_path / "a,b.csv", [(series(rng, 8), series(rng, 8)), (series(rng, 8), series(rng, 8))])
    b = write(tmp_path / "b.csv", [(series(rng, 8, 2), series(rng, 8)), (series(rng, 8), series(rng, 8))])
    objects = json.loads(run("compare", a, b, "-f", "json", check=True).stdout)
    lines = list(csv.DictReader(io.StringIO(run("compare", a, b, "-f", "csv", check=True).stdout)))
    assert [{k: str(v) for k, v in o.items()}.keys() for o in objects] == [line.keys() for line in lines]
    for o, line in zip(objects, lines):
        assert line["before"] == o["before"] == str(a) and line["verdict"] == o["verdict"]
        assert float(line["p_holm"]) == o["p_holm"] and line["configuration"] == o["configuration"]
    assert objects[0]["verdict"] == "faster" and objects[0]["configuration"] == "n_prompt 1"
    for form in ("text", "md"):
        table = run("compare", a, b, "-f", form, check=True).stdout
        assert "n_prompt 2" in table and "~" in table and "geometric mean" in table


def test_what_varies_in_neither_file_may_differ(run, tmp_path):
    a = write(tmp_path / "a", [([100.0] * 4, [1.0] * 4)], [("kv_bits", 4), ("threads", 2)])
    b = write(tmp_path / "b", [([100.0] * 4, [1.0] * 4)], [("kv_bits", 8), ("threads", 2)])
    assert len(json.loads(run("compare", a, b, "-f", "json", check=True).stdout)) == 2


@pytest.mark.parametrize("files, code, word", [
    ([], 2, "two or more"), (["a"], 2, "two or more"), (["a", "missing"], 1, "missing"), (["a", "other"], 1, "in common"),
    (["a", "a", "-f", "xml"], 2, "xml"),
])
def test_refused(run, tmp_path, files, code, word):
    write(tmp_path / "a", [([1.0, 2.0], [1.0]), ([1.0], [1.0])])
    (tmp_path / "other").write_text("run,configuration,model,n_prompt,prompt_tps\n1,1,a,7,1\n2,2,a,8,1\n")
    done = run("compare", *[tmp_path / f if f in ("a", "missing", "other") else f for f in files])
    assert done.returncode == code and word in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("grades, code", [("AB", 3), ("AC", 0), ("FA", 0), ("A-", 3), ("--", 3)])
def test_a_disturbed_side_is_not_comparable(run, tmp_path, grades, code):
    """With --fail-slower; the table shows both sides' quality in any case. Unknown is no reproach."""
    rng = np.random.default_rng(8)
    files = [write(tmp_path / name, [(series(rng, 12, factor, 0.005), series(rng, 12, 1, 0.005))],
                   [] if grade == "-" else [("quality", grade)])
             for name, factor, grade in zip("ab", (1, 0.9), grades)]
    done = run("compare", *files, "--fail-slower", "3%", "-f", "json")
    found = json.loads(done.stdout)
    assert done.returncode == code
    assert [d["verdict"] for d in found] == (["slower", "~"] if code else ["not comparable"] * 2)
    assert [found[0]["quality_before"], found[0]["quality_after"]] == [None if g == "-" else g for g in grades]
    assert ("2 lines are not comparable" in done.stderr) == (code == 0)
    assert "slower" == json.loads(run("compare", *files, "-f", "json", check=True).stdout)[0]["verdict"]
    table = run("compare", *files, "--fail-slower", "3%").stdout
    assert ("not comparable" in table) == (code == 0) and (", ".join(grades).replace("-", "?") in table or grades == "--")


def test_a_quarter_of_the_runs_may_be_disturbed(run, tmp_path):
    for n_bad, grade in [(2, "A"), (3, "D")]:
        (tmp_path / "a").write_text("run,configuration,prompt_tps,quality\n" + "".join(
            f"{i},1,{100 + i},{'D' if i < n_bad else 'A'}\n" for i in range(8)))
        summary, = json.loads(run("report", tmp_path / "a", "-o", "json", check=True).stdout)["summaries"]
        assert summary["quality"] == grade


def test_junit(run, tmp_path):
    """A case for each line; failed and skipped are what the exit code and the other formats say."""
    rng = np.random.default_rng(9)
    lines = [(series(rng, 12, f, 0.005), series(rng, 12, 1, 0.005)) for f in (1, 1)], [
        (series(rng, 12, f, 0.005), series(rng, 12, 1, 0.005)) for f in (0.9, 1)]
    a, b = write(tmp_path / 'a<&"', lines[0]), write(tmp_path / "b", lines[1])
    bad = write(tmp_path / "bad", lines[1], [("quality", "F")])
    done = run("compare", a, b, bad, "--fail-slower", "3%", "-f", "junit")
    assert done.returncode == 3
    found, disturbed = xml.etree.ElementTree.fromstring(done.stdout)
    assert found.get("name") == f"{a} to {b}" and (found.get("tests"), found.get("failures"), found.get("skipped")) == ("4", "1", "0")
    failed, = [case for case in found if case.find("failure") is not None]
    assert (failed.get("classname"), failed.get("name")) == ("prompt_tps", "n_prompt 1")
    assert "the limit is -3.0 %" in failed.find("failure").get("message")
    assert disturbed.get("skipped") == "4" and disturbed.get("failures") == "0"
    calm = xml.etree.ElementTree.fromstring(run("compare", a, bad, "-f", "junit", check=True).stdout)
    assert calm[0].get("failures") == calm[0].get("skipped") == "0"


def test_gate(run, tmp_path):
    """Exit code 3 only for a loss that is sure and larger."""
    rng = np.random.default_rng(8)
    same, less = [series(rng, 12, noise=0.005) for _ in range(2)], series(rng, 12, 0.95, 0.005)
    a = write(tmp_path / "a", [(same[0], same[0])])
    b, slow = write(tmp_path / "b", [(same[1], same[1])]), write(tmp_path / "slow", [(less, same[1])])
    few, fewer = write(tmp_path / "few", [(less[:4], same[1][:4])]), write(tmp_path / "fewer", [(same[0][:4], same[0][:4])])
    for before, after, limit, code in [(a, b, "1%", 0), (a, slow, "3%", 3), (a, slow, "3", 3), (a, slow, "8%", 0),
                                       (fewer, few, "3%", 0)]:
        done = run("compare", before, after, "--fail-slower", limit)
        assert done.returncode == code and "prompt_tps" in done.stdout
        assert len(done.stderr.splitlines()) == (code == 3)
    for limit in ("", "x", "-1", "100%", "nan", "3%%"):
        assert run("compare", a, b, "--fail-slower", limit).returncode == 2
