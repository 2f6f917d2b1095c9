"""`mlxbench bench` on an engine that computes nothing: sweeps, formats, prompts, metrics and what is said meanwhile."""

import csv
import io
import json
import os
import pathlib
import pty
import re
import signal
import subprocess

import files
import pytest
from rows import runs_of

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BOOK = ROOT / "share/book.txt"
SMALL = ["--engine", "fake", "-np", 8, "-n", 4]
RANDOM = [*SMALL, "--prompt-tokens", "random"]


@pytest.fixture
def bench(run, good_folder):
    """bench(arguments) -> the finished, successful program, on the small model."""

    def bench(*arguments, **options):
        return run("bench", "--model", good_folder, *arguments, check=True, **options)

    return bench


@pytest.fixture
def measure(bench):
    """measure(arguments) -> the rows, with all raw values."""
    return lambda *arguments, **options: runs_of(bench(*arguments, "-o", "jsonl", **options).stdout)


# ---- the command ----

def test_measuring_is_the_default_command(run, good_folder):
    for command in [[], ["bench"]]:
        done = run(*command, "--model", good_folder, *SMALL, check=True)
        assert done.stdout.startswith("run,prompt_tokens,")
        assert len(done.stdout.splitlines()) == 2
        assert done.stderr == ""


def test_version(run):
    assert re.fullmatch(r"mlxbench \d+\.\d+\.\d+\n", run("--version", check=True).stdout)


SCREEN = 24  # lines: a terminal's usual height


def test_help_is_made_from_the_tables(run):
    overview = run("--help", check=True).stdout
    assert overview == run("help", check=True).stdout
    assert len(overview.splitlines()) <= 24
    commands = re.findall(r"COMMAND\((\w+), \"", (ROOT / "src/cmd/cmd.h").read_text())
    assert "bench" in commands and all(f"  {name} " in overview for name in commands)
    table = (ROOT / "src/results/params.def").read_text()
    common = re.findall(r'^COMMON\(\w+, \w+, "([a-z-]+)"', table, re.M)
    options = common + re.findall(r'^PARAM\(\w+, \w+, "([a-z-]+)"', table, re.M)
    assert len(options) >= 11
    for command, names in [("bench", options), ("generate", common)]:
        page = run(command, "--help", "all", check=True).stdout
        assert page == run("help", command, "all", check=True).stdout
        assert all(f"--{name} " in page for name in names)
        assert max(map(len, page.splitlines())) <= 100
    page = run("bench", "--help", "all", check=True).stdout
    for text in ["-np, --n-prompt", "(1000)", "-pss, --prefill-step-size", "(2048)", "-r, --repeats", "mlxbench, md",
                 "(The quick brown fox jumps over the lazy dog. )", "(mlx-community/Llama-3.2-3B-Instruct-4bit)"]:
        assert text in " ".join(page.split()).replace("dog.)", "dog. )")


def test_help_fits_a_screen(run):
    for command in re.findall(r"COMMAND\((\w+), \"", (ROOT / "src/cmd/cmd.h").read_text()):
        page = run(command, "--help", check=True).stdout
        assert page == run(command, "-h", check=True).stdout == run("help", command, check=True).stdout
        assert len(page.splitlines()) <= SCREEN, page
        assert "\nexample:\n" in page


# ---- the sweep ----

def test_product_of_all_lists(measure):
    rows = measure("--engine", "fake", "-np", "8,16", "-n", "2,3", "-pss", "4,8", "--kv-bits", "none,4,8",
                   "--kv-group-size", 32, "-r", 2, "--order", "given")
    assert [row["run"] for row in rows] == list(range(1, 49))
    found = [tuple(row[c] for c in ("n_prompt", "n_generate", "kv_bits", "prefill_step_size")) for row in rows]
    assert found == [(p, n, bits, step) for p in (8, 16) for n in (2, 3) for bits in (None, 4, 8)
                     for step in (4, 8) for _ in range(2)]
    for row in rows:
        assert row["prompt_tokens"] == row["n_prompt"]
        assert row["generation_tokens"] == row["n_generate"] == len(row["token_ns"]) == len(row["token_ids"])


def test_depth_and_batch(measure):
    rows = measure("--engine", "fake", "-np", 8, "-n", 3, "-d", "0,24", "-b", "1,4", "-r", 2, "--order",
                   "given")
    assert [(row["depth"], row["batch"]) for row in rows] == [
        (depth, batch) for depth in (0, 24) for batch in (1, 4) for _ in range(2)]
    for row in rows:
        assert row["prompt_tokens"] == 8 and row["generation_tokens"] == 3 == len(row["token_ns"])  # of each sequence
        assert len(row["token_ids"]) == 3 * row["batch"]
        assert row["generation_tps"] == pytest.approx(row["batch"] * row["sequence_tps"], rel=1e-3)
        seconds = (row["token_ns"][0] - row["start_ns"]) / 1e9
        assert row["prompt_tps"] == pytest.approx(row["batch"] * 8 / seconds, rel=1e-3)
    held = {(row["depth"], row["batch"]): row["kv_gb"] for row in rows}  # of prompt and tokens, or with the depth
    assert held[24, 1] == pytest.approx(held[0, 1] * (24 + 8 + 2) / (8 + 2), abs=2e-6)
    assert held[0, 4] == pytest.approx(4 * held[0, 1], abs=4e-6)


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_a_depth_is_the_beginning_of_the_text(run, measure, engine):
    if engine == "mlx" and "not usable" in next(
            line for line in run("hwinfo").stdout.splitlines() if line.startswith("engine mlx:")):
        pytest.skip("this build has no MLX")
    for source in ("text", "random"):
        options = ["--engine", engine, "-n", 4, "-pss", 8, "--prompt-tokens", source, "-b", "1,3", "-r", 2, "--order",
                   "given"]
        whole, deep = measure("-np", 40, *options), measure("-np", 16, "-d", 24, *options)
        assert [row["token_ids"] for row in whole] == [row["token_ids"] for row in deep]


def test_each_model_is_loaded_once_per_engine(run, good_folder, good_gguf):
    done = run("--model", f"{good_folder},{good_gguf}", "--engine", "fake,auto", *RANDOM[2:], "-t", "1,2", "-r", 2,
               "--order", "given", "-o", "jsonl", check=True)
    rows = runs_of(done.stdout)
    keys = [(row["model"], row["engine"]) for row in rows]
    assert [keys[0], keys[4], keys[8], keys[12]] == list(dict.fromkeys(keys))
    assert {row["engine"] for row in rows} == {"fake", "cpu"}  # what ran, not "auto"
    assert [row["threads"] for row in rows] == [1, 1, 2, 2] * 4
    for i in range(0, 16, 4):
        assert len({row["load_ns"] for row in rows[i:i + 4]}) == 1
    assert len({row["load_ns"] for row in rows}) == 4


def test_engine_options_need_no_other_load(measure):
    rows = measure(*RANDOM, "--graph", "fused,mlx-lm", "--activations", "exact,int8")
    assert [(row["graph"], row["activations"]) for row in rows] == [
        (graph, activations) for graph in ("fused", "mlx-lm") for activations in ("exact", "int8")]
    assert len({row["load_ns"] for row in rows}) == 1


def test_bench_runs_the_graph_of_mlx_lm(measure):
    """What its user gets elsewhere is what is measured, unless more is asked for."""
    row, = measure(*RANDOM)
    assert row["graph"] == "mlx-lm"


def test_models_given_one_by_one(measure, good_folder, tmp_path):
    odd = tmp_path / "a, b"
    odd.symlink_to(good_folder)
    rows = measure("-m", str(odd).replace(",", "\\,"), *RANDOM)
    assert [row["model"] for row in rows] == [str(good_folder), str(odd)]


def test_variables_of_mlx(run, fails, measure, good_folder):
    row, = measure(*RANDOM, "--mlx-env", "MLX_MAX_OPS_PER_BUFFER=7")
    assert row["mlx_env"] is None  # the engine is another one
    for text in ["MLX_TF32", "TF32=1", "MLX_=1", "MLX_TF32=", "=", ""]:
        fails(2, ["--mlx-env", "NAME=VALUE"], "--model", good_folder, *RANDOM, "--mlx-env", text)
    if "not usable" in next(line for line in run("hwinfo").stdout.splitlines() if line.startswith("engine mlx:")):
        pytest.skip("this build has no MLX to show them")
    row, = measure("--engine", "mlx", *RANDOM[2:], "--mlx-env", "MLX_MAX_OPS_PER_BUFFER=7", "--mlx-env",
                   "MLX_ENABLE_TF32=0", env={"MLX_MAX_OPS_PER_BUFFER": "9", "MLX_BFS_MAX_WIDTH": "3"})
    shown = dict(pair.split("=", 1) for pair in row["mlx_env"].split(" "))
    assert shown["MLX_MAX_OPS_PER_BUFFER"] == "7"  # the option wins
    assert shown["MLX_BFS_MAX_WIDTH"] == "3" and shown["MLX_ENABLE_TF32"] == "0"


def test_option_of_another_engine_is_unset(measure):
    row, = measure("--engine", "cpu", *RANDOM[2:], "--graph", "mlx-lm")
    assert (row["graph"], row["activations"]) == (None, "exact")


# ---- formats ----

MLXBENCH = ("run,model,hw_model,n_prompt,n_generate,max_kv_size,kv_bits,kv_group_size,quantized_kv_start,"
            "prefill_step_size,prompt_tokens,prompt_tps,generation_tokens,generation_tps,peak_memory_gb")


def test_formats_to_several_files(bench, tmp_path, good_folder):
    outputs = [part for name in ("csv", "json", "jsonl", "mlxbench") for part in ("-o", f"{name}:{tmp_path}/{name}")]
    done = bench(*RANDOM, "--kv-bits", "none,4", "--kv-group-size", 32, "-r", 2, *outputs, "-o", "md")
    text = {name: (tmp_path / name).read_text() for name in ("csv", "json", "jsonl", "mlxbench")}
    rows = list(csv.DictReader(io.StringIO(text["csv"])))
    objects, lines = json.loads(text["json"])["runs"], runs_of(text["jsonl"])
    assert len(rows) == len(objects) == len(lines) == 4
    assert text["csv"].startswith("run,prompt_tokens,prompt_tps,generation_tokens,generation_tps,peak_memory_gb,configuration,repeat,"
                                  "model,")
    for row, entry, line in zip(rows, objects, lines):
        assert row.keys() == entry.keys()
        assert {**line, **entry} == line
        assert [row["kv_bits"], entry["kv_bits"]] in (["", None], ["4", 4])
        assert row["model"] == entry["model"] == str(good_folder)
        assert entry["synthetic"] is False and row["synthetic"] == "false"
    header, *old = csv.reader(io.StringIO(text["mlxbench"]))
    assert ",".join(header) == MLXBENCH
    for row, full in zip(old, rows):
        assert row[5:10] == ["None", full["kv_bits"] or "None", "32", "0", "2048"]
        assert [row[i] for i in (0, 1, 2, 10, 12)] == [full[c] for c in ("run", "model", "hw_model", "prompt_tokens",
                                                                         "generation_tokens")]
        assert all(re.fullmatch(r"\d+\.\d{3}", row[i]) for i in (11, 13, 14))
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) == 4  # a line per configuration
    assert "kv_bits" in done.stdout and "max_kv_size" not in done.stdout  # only what varies


def test_one_token_has_no_generation_speed(bench):
    for form, none in [("csv", ""), ("mlxbench", "None")]:
        row = next(csv.DictReader(io.StringIO(bench(*RANDOM, "-n", 1, "-o", form).stdout)))
        assert row["generation_tps"] == none
        assert float(row["prompt_tps"]) > 0


def test_quoting(run, good_folder, tmp_path):
    model = tmp_path / 'a "strange" näme|'
    model.symlink_to(good_folder)
    for form in ["csv", "mlxbench"]:
        done = run("--model", model, *RANDOM, "-o", form, check=True)
        assert '""strange""' in done.stdout
        assert next(csv.DictReader(io.StringIO(done.stdout)))["model"] == str(model)
    found = json.loads(run("--model", model, *RANDOM, "-o", "json", check=True).stdout)["runs"]
    for row in found + runs_of(run("--model", model, *RANDOM, "-o", "jsonl", check=True).stdout):
        assert row["model"] == str(model)


def test_synthetic_weights_are_said_to_be(run):
    done = run("--model", "synthetic:tiny-llama-13m-4bit", *SMALL, "-o", "json", check=True)
    row, = json.loads(done.stdout)["runs"]
    assert row["synthetic"] is True and row["prompt_source"] == "random"
    assert (row["quantization"], row["model_type"]) == ("4-bit g64", "llama")
    assert len(done.stderr.splitlines()) == 1 and "no tokenizer" in done.stderr


def test_json_is_complete_after_ctrl_c(mlxbench, good_folder, tmp_path):
    file = tmp_path / "rows.json"
    process = subprocess.Popen([mlxbench, "--model", good_folder, *map(str, RANDOM), "-r", "1000000", "-o",
                                f"json:{file}", "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(json.loads(file.read_text())["runs"]) >= 1


def test_json_is_complete_after_an_error(run, good_folder, tmp_path):
    done = run("--model", good_folder, "--engine", "fake", "-np", "8,100000000", "-n", "1", "--prompt-tokens", "random",
               "-o", "json")
    if done.returncode == 0:
        pytest.skip("this machine has memory for 100 million tokens")
    assert done.returncode == 1 and "memory" in done.stderr
    assert [bool(row["error"]) for row in json.loads(done.stdout)["runs"]] == [False, True]


@pytest.mark.parametrize("outputs, words", [
    (["-o", "csv", "-o", "json"], "standard output"), (["-o", "csv:x", "-o", "json:x"], "same file"),
])
def test_outputs_that_would_mix(fails, good_folder, tmp_path, outputs, words):
    fails(2, [words], "--model", good_folder, *RANDOM, *outputs)


def test_every_column_is_explained(bench):
    page = (ROOT / "docs/metrics.md").read_text()
    header = bench(*RANDOM).stdout.splitlines()[0]
    missing = [column for column in header.split(",") if f"`{column}`" not in page]
    assert not missing


# ---- metrics ----

def test_metrics_follow_from_the_raw_times(measure):
    for row in measure(*RANDOM, "-n", 12, "-r", 3):
        start, times = row["start_ns"], row["token_ns"]
        assert times == sorted(times) and times[0] > start
        assert row["prompt_tps"] == pytest.approx(8 / (times[0] - start) * 1e9, abs=1e-3)
        assert row["generation_tps"] == pytest.approx(11 / (times[-1] - times[0]) * 1e9, abs=1e-3)
        assert row["ttft_ms"] == pytest.approx((times[0] - start) / 1e6, abs=1e-3)
        assert row["total_s"] == pytest.approx((times[-1] - start) / 1e9, abs=1e-6)
        gaps = sorted(b - a for a, b in zip(times, times[1:]))
        assert row["itl_p50_ms"] == pytest.approx(gaps[5] / 1e6, abs=1e-3)
        assert row["itl_p99_ms"] == pytest.approx(gaps[10] / 1e6, abs=1e-3)
        assert row["load_s"] == pytest.approx(row["load_ns"] / 1e9, abs=1e-6)


def test_memory_is_that_of_the_run(measure):
    rows = measure("--engine", "fake", "-np", "500,8", "-n", 4, "--kv-bits", "none,4", "--kv-group-size", 32,
                   "--prompt-tokens", "random")
    numbers = 2 * 2 * 32  # layers, keys and values, head_dim; one KV head
    for row, entries in zip(rows, (503, 503, 11, 11)):
        entry = numbers * 4 if row["kv_bits"] is None else numbers // 2 + numbers // 32 * 2 * 4
        assert row["kv_gb"] == pytest.approx(entries * entry / 1e9, abs=1e-6)
        assert row["peak_memory_gb"] >= row["weights_gb"] + row["kv_gb"]
    assert rows[2]["peak_memory_gb"] < rows[0]["peak_memory_gb"]  # reset for each run


def test_a_row_does_not_depend_on_the_one_before(run):
    """Not even on a much larger one."""
    command = ["--model", "synthetic:tiny-llama-13m-4bit", "--engine", "cpu", "-n", 4, "-t", 2, "-o", "jsonl"]
    _, after = runs_of(run(*command, "-np", "2048,64", check=True).stdout)
    alone, = runs_of(run(*command, "-np", 64, check=True).stdout)
    for metric in ("peak_memory_gb", "scratch_gb", "kv_gb", "weights_gb"):
        assert after[metric] == alone[metric], metric


def test_a_gguf_files_cache_has_its_matrices_type(run, demo_model):
    """F16, though the file's norms are F32."""
    done = run("bench", "--model", demo_model, "--engine", "cpu", "-np", 8, "-n", 4, "-r", 1, "--prompt-tokens", "random",
               "-o", "jsonl", check=True)
    row, = runs_of(done.stdout)
    entries, numbers = 256, 30 * 2 * 3 * 64  # a cache's first step; layers, keys and values, KV heads, head_dim
    assert row["kv_gb"] == pytest.approx(entries * numbers * 2 / 1e9, abs=1e-6)


# ---- prompts ----

def generated(run, model, text, n):
    """The ids that follow `text`, repeated and cut to n tokens, by the commands tokenize and generate."""
    ids = run("tokenize", "--model", model, input=text, check=True).stdout.split()
    prompt = (ids * n)[:n]
    return [int(x) for x in run("generate", "--model", model, "--prompt-ids", ",".join(prompt), "--ids",
                                "--ignore-eos", "--max-tokens", 8, check=True).stdout.split()]


@pytest.mark.parametrize("text, arguments, stdin", [
    ("to the test. ", ["-p", "to the test. "], None),
    ("two\nlines\tand a tab ", ["-p", "two\\nlines\\tand a tab "], None),
    ("a\\nb from stdin", ["-p", "-"], "a\\nb from stdin"),
])
def test_prompt_is_the_text_repeated_and_cut(run, measure, good_folder, text, arguments, stdin):
    for n in (3, 50):
        row, = measure("-np", n, "-n", 8, *arguments, input=stdin)
        assert row["prompt_source"] == "text" and row["prompt_tokens"] == n
        assert row["token_ids"] == generated(run, good_folder, text, n)


def test_prompt_from_files(run, measure, fails, good_folder, tmp_path):
    """Each file is a prompt of its own, in one sweep with others."""
    (tmp_path / "a").write_text("to the test. ")
    (tmp_path / "b,c").write_text("to be ")
    names = [f"file:{tmp_path}/a", f"file:{tmp_path}/b,c", "text", "random"]
    rows = measure("-np", 30, "-n", 8, "-p", "the quick ", "--prompt-tokens",
                   ",".join(name.replace(",", "\\,") for name in names))
    assert [row["prompt_source"] for row in rows] == names
    for row, text in zip(rows, ["to the test. ", "to be ", "the quick "]):
        assert row["token_ids"] == generated(run, good_folder, text, 30)
    fails(2, ["--prompt-tokens", "nonesuch"], "-m", good_folder, "--prompt-tokens", f"file:{tmp_path}/nonesuch")
    fails(2, ["--prompt-tokens"], "-m", good_folder, "--prompt-tokens", "file:")
    (tmp_path / "empty").write_text("")
    fails(1, ["empty", "no token"], "-m", good_folder, *SMALL, "--prompt-tokens", f"file:{tmp_path}/empty")


def test_prompt_from_the_book(run, measure, good_folder, tmp_path):
    """The text that is in the program is the file's, to its end."""
    n = len(run("tokenize", "--model", good_folder, input=BOOK.read_text(), check=True).stdout.split())
    rows = measure("-np", f"40,{n + 40}", "-n", 2, "--engine", "fake", "--prompt-tokens", f"book,file:{BOOK},text", "-p",
                   "another text")
    hashes = {(row["prompt_source"].split(":")[0], row["n_prompt"]): row["prompt_hash"] for row in rows}
    for length in (40, n + 40):
        assert hashes["book", length] == hashes["file", length] != hashes["text", length]
    folder = files.write_folder(tmp_path, tokenizer=False)
    row, = runs_of(run("-m", folder, *SMALL, "--prompt-tokens", "book", "-o", "jsonl", check=True).stdout)
    assert row["prompt_source"] == "random"


def test_file_for_a_model_without_a_tokenizer(fails, tmp_path):
    folder = files.write_folder(tmp_path, tokenizer=False)
    fails(1, ["tokenizer", "random"], "-m", folder, *SMALL, "--prompt-tokens", f"file:{tmp_path}/config.json")


def test_random_prompt_follows_the_seed(measure):
    def ids(seed):
        return measure("-np", 40, "-n", 12, "--prompt-tokens", "random", "--seed", seed)[0]["token_ids"]

    assert ids(1) == ids(1)
    assert len({tuple(ids(seed)) for seed in range(5)}) > 1


# ---- what is said meanwhile ----

def test_verbose_prints_the_text_to_stderr(bench, run, good_folder):
    done = bench("-np", 8, "-n", 8, "-v", "-p", "to be ")
    assert len(done.stdout.splitlines()) == 2
    ids = " ".join(map(str, generated(run, good_folder, "to be ", 8)))
    text = run("tokenize", "--model", good_folder, "--decode", input=ids, check=True).stdout
    assert text.rstrip("\n") in done.stderr


def on_terminal(mlxbench, *arguments):
    """Standard output and error together, as a terminal gets them."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(mlxbench, [str(mlxbench), *map(str, arguments)])
    out = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux: the other side is gone
            break
        if not part:
            break
        out += part
    assert os.waitpid(pid, 0)[1] == 0
    return out.decode()


def test_terminal_gets_a_table_and_progress(mlxbench, good_folder):
    out = on_terminal(mlxbench, "--model", good_folder, *RANDOM)
    assert out.startswith("| model")
    assert "\rrun 1 of 3: 0 of 8 prompt tokens" in out.replace("\033[K", "")
    # Every row begins on a line that was cleared.
    assert re.search(r"\r\033\[K\| " + re.escape(str(good_folder)), out)


def test_last_line_on_a_terminal_can_be_pasted(mlxbench, good_folder):
    out = on_terminal(mlxbench, "--model", good_folder, *RANDOM, "-r", 6)
    number = r"[\d.]+"
    interval = rf"{number} tokens/s \(95 % {number} to {number}\)"
    last = out.splitlines()[-1]
    assert re.fullmatch(rf"{good_folder.name} f32 on .+, fake \(.+\), \d+ threads: prompt of 8 tokens at {interval}, generation of 4 tokens at "
                        rf"{interval}, {number} GB, 6 runs, mlxbench [\d.]+", last), last
    out = on_terminal(mlxbench, "--model", good_folder, *RANDOM, "-np", "8,9")
    assert re.match(rf"fastest of 2: {good_folder.name} f32 on .+ of 4 tokens at {number} tokens/s, {number} GB, 1 run, ",
                    out.splitlines()[-1])


def test_no_progress_elsewhere(bench):
    assert bench(*RANDOM, "-r", 3).stderr == ""


def test_option_without_effect_is_said_to_be(bench):
    done = bench(*RANDOM, "--max-kv-size", 16)
    assert len(done.stderr.splitlines()) == 1 and "--max-kv-size" in done.stderr
