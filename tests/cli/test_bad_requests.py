"""Requests that can't be met: one line, the right exit code (2 for a wrong request, 1 for a failure)."""

import json

import files
import pytest


@pytest.mark.parametrize("arguments, words", [
    (["--nonesuch"], ["--nonesuch"]),
    (["--n-promt", "5"], ["--n-promt", "--n-prompt"]),
    (["--n-prompt"], ["--n-prompt"]),
    (["-np", "0"], ["n-prompt", "0"]),
    (["-np", "-1"], ["n-prompt", "-1"]),
    (["-np", "ten"], ["n-prompt", "ten"]),
    (["-np", "10x"], ["n-prompt", "10x"]),
    (["-np", "1.5"], ["n-prompt", "1.5"]),
    (["-np", "99999999999999999999"], ["n-prompt"]),
    (["-np", ""], ["n-prompt"]),
    (["-np", "8,,16"], ["n-prompt", "empty"]),
    (["-np", "8,"], ["n-prompt", "empty"]),
    (["-np", ",8"], ["n-prompt", "empty"]),
    (["--model", "a,,b"], ["model", "empty"]),
    (["-n", "0"], ["n-generate", "0"]),
    (["-d", "-1"], ["depth", "-1"]),
    (["--batch", "0"], ["batch", "0"]),
    (["-r", "0"], ["repeats", "0"]),
    (["--repeats", "1,2"], ["repeats"]),
    (["--warmup", "-1"], ["warmup"]),
    (["--kv-bits", "7"], ["kv-bits", "7"]),
    (["--kv-bits", "16"], ["kv-bits", "16"]),
    (["--kv-group-size", "48"], ["kv-group-size", "48"]),
    (["--prefill-step-size", "0"], ["prefill-step-size", "0"]),
    (["--threads", "100000"], ["threads"]),
    (["--engine", "nonesuch"], ["nonesuch", "cpu"]),
    (["--prompt-tokens", "nonesuch"], ["prompt-tokens", "nonesuch"]),
    (["--prompt", ""], ["prompt"]),
    (["-o", "nonesuch"], ["nonesuch", "csv"]),
    (["-o", "csv:"], ["csv"]),
    (["surplus"], ["surplus"]),
])
def test_usage(fails, good_folder, arguments, words):
    model = [] if "--model" in arguments else ["--model", good_folder]
    done = fails(2, words, "bench", *model, *arguments)
    assert done.stdout == ""


@pytest.mark.parametrize("arguments, words", [
    (["nonesuch"], ["nonesuch", "bench"]),
    (["generate"], ["--model"]),
    (["generate", "--model", "x"], ["--prompt"]),
    (["generate", "--prompt-ids", "1"], ["--model"]),
    (["generate", "--nonesuch"], ["--nonesuch"]),
    (["tokenize"], ["--model"]),
    (["hwinfo", "--nonesuch"], ["--nonesuch"]),
    (["models", "--nonesuch"], ["--nonesuch"]),
])
def test_usage_of_commands(fails, arguments, words):
    fails(2, words, *arguments)


def test_kernels_that_do_not_exist(fails, good_folder):
    fails(2, ["MLXBENCH_CPU", "nonesuch"], "generate", "--model", good_folder, "--prompt-ids", "1",
          env={"MLXBENCH_CPU": "nonesuch"})


@pytest.mark.parametrize("ids", ["", ",", "1,,2", "a", "1,b", "1;2", "99999999999999", "-1", "96", "1,2,1000"])
def test_prompt_ids(fails, good_folder, ids):
    fails(2, [], "generate", "--model", good_folder, "--prompt-ids", ids, "--ids", "--max-tokens", 1)


@pytest.mark.parametrize("command", ["generate", "bench"])
def test_prompt_without_a_token(fails, good_folder, command):
    fails(2, ["prompt"], command, "--model", good_folder, "--prompt", "")


def test_standard_input_without_a_token(fails, good_folder):
    fails(2, ["prompt"], "bench", "--model", good_folder, "--prompt", "-", input="")


def test_text_without_a_tokenizer(fails, tmp_path):
    folder = files.write_folder(tmp_path, tokenizer=False)
    for command in ["generate", "bench"]:
        fails(1, ["tokenizer"], command, "--model", folder, "--prompt", "hello")


def test_prompt_from_a_file(run, fails, good_folder, tmp_path):
    """-p TEXT, -p - and -p @FILE are the same prompt, in both commands."""
    (tmp_path / "p").write_text("a b\tc\n")
    seen = set()
    for prompt, text in [("a b\\tc\\n", None), (f"@{tmp_path}/p", None), ("-", "a b\tc\n")]:
        done = run("generate", "-m", good_folder, "-p", prompt, "--ids", "-n", 8, "--ignore-eos", input=text, check=True)
        seen.add(done.stdout)
        run("bench", "-m", good_folder, "--engine", "fake", "-p", prompt, "-np", 8, "-n", 2, input=text, check=True)
    assert len(seen) == 1
    for command in ["generate", "bench"]:
        fails(2, ["--prompt", "nonesuch"], command, "-m", good_folder, "-p", f"@{tmp_path}/nonesuch")
        (tmp_path / "empty").write_text("")
        fails(2, ["--prompt", "empty"], command, "-m", good_folder, "-p", f"@{tmp_path}/empty")


def test_unusual_requests_get_a_note_each_once(run, good_folder, good_gguf, tmp_path):
    short = files.write_folder(tmp_path, config=files.CONFIG | {"max_position_embeddings": 2048})
    longer = ["-np", 2046, "-n", "4,5", "-pss", 512]
    done = run("bench", "-m", good_folder, "-m", good_gguf, "--engine", "fake,cpu", "-t", "1,900", "-np", 8, "-n", 2,
               "--warmup", 0, check=True)
    assert len(done.stderr.splitlines()) == 1 and "900 threads share" in done.stderr
    done = run("bench", "-m", short, "--engine", "fake", *longer, check=True)
    assert [f"not for {n}" in line for n, line in zip((2050, 2051), done.stderr.splitlines())] == [True, True]
    done = run("generate", "-m", short, "--engine", "fake", "--prompt-ids", "1", "--ids", "-n", 2048, "-t", 900,
               check=True)
    assert len(done.stderr.splitlines()) == 2
    assert "900 threads share" in done.stderr and "max_position_embeddings" in done.stderr


def test_model_that_ends_at_once(run, tmp_path):
    """One whose first token is its end: said, with what to do."""
    config = files.CONFIG | {"eos_token_id": list(range(16))}
    folder = files.write_folder(tmp_path, config=config)
    ask = ["generate", "-m", folder, "--engine", "fake", "--prompt-ids", "1", "-n", 3]  # its first id is 7 + 3
    done = run(*ask, check=True)
    assert done.stdout.strip() == "" and len(done.stderr.splitlines()) == 1
    assert "ended at once" in done.stderr and "--ignore-eos" in done.stderr
    assert run(*ask, "--ignore-eos", check=True).stderr == ""


def test_model_beyond_memory(fails, tmp_path):
    """Refused before it is loaded: a file with a hole, larger than any memory here."""
    size = 1 << 42
    header = {"model.embed_tokens.weight": dict(dtype="F32", shape=[size // 256, 64], data_offsets=[0, size])}
    folder = files.write_folder(tmp_path, file=files.safetensors_bytes(header, b""))
    file = folder / "model.safetensors"
    try:
        with open(file, "r+b") as opened:
            opened.truncate(file.stat().st_size + size)
    except OSError as error:
        pytest.skip(f"no file with a hole of {size} bytes here: {error}")
    for command in [["generate", "--prompt-ids", "1", "--ids"], ["bench", "--prompt-tokens", "random"]]:
        fails(1, ["4398.05 GB", "GB of memory are free"], *command, "-m", folder)


def test_preset_beyond_memory(mlxbench, run):
    """The same for random weights, which are made one by one. What is free is what this machine has."""
    available = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable")) * 1024
    needed = 122.13e9  # qwen3-30b-a3b in F32
    if available > needed:
        pytest.skip("this machine has memory for the largest preset")
    done = run("generate", "-m", "synthetic:qwen3-30b-a3b-f32", "--prompt-ids", 1, "--ids", timeout=30)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "122.1" in done.stderr and "GB of memory are free" in done.stderr


def test_context_beyond_memory(fails, good_folder):
    for command, prompt, new in [("bench", ["-np", 90000000], ["-n", 100000000]),
                                 ("bench", ["-np", 1, "-d", 90000000], ["-n", 1, "-b", 100]),
                                 ("generate", ["--prompt-ids", "1"], ["--max-tokens", 10**9])]:
        fails(1, ["KV cache", "available"], command, "--model", good_folder, *prompt, *new)


def test_hub_name_that_is_not_there(fails, tmp_path):
    fails(1, ["nobody/nothing"], "bench", "--model", "nobody/nothing", env={"HF_HUB_CACHE": str(tmp_path)})


def test_synthetic_name_that_does_not_exist(fails):
    fails(2, ["nonesuch", "llama-3.2-1b"], "bench", "--model", "synthetic:nonesuch-4bit")


# ---- tokenizer.json ----

@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"model": null}', '{"model": 3}', '{"model": {}}',
                                  '{"model": {"type": "BPE"}}', '{"model": {"type": "Nonesuch", "vocab": {}}}',
                                  '{"model": {"type": "BPE", "vocab": 1, "merges": []}}', "[" * 100000])
def test_tokenizer_is_none(fails, tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    fails(1, ["tokenizer.json"], "tokenize", "--model", tmp_path, input="hello")


@pytest.mark.parametrize("change", [
    {"merges": ["a nonesuch"]}, {"merges": ["nonesuch a"]}, {"merges": ["a b"]}, {"merges": ["abc"]},
    {"merges": [["a"]]}, {"merges": [["a", "b", "c"]]}, {"merges": [7]}, {"merges": "a b"}, {"merges": {}},
    {"vocab": {"a": -1}}, {"vocab": {"a": 10**12}}, {"vocab": {"a": "0"}}, {"vocab": {"a": 0.5}}, {"vocab": []},
])
def test_tokenizer_model(fails, tmp_path, change):
    tokenizer = files.tokenizer_json()
    tokenizer["model"] |= change
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    fails(1, ["tokenizer.json"], "tokenize", "--model", tmp_path, input="hello")


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "post_processor", "decoder"])
@pytest.mark.parametrize("value", [{"type": "Nonesuch"}, {}, 3, {"type": 3}])
def test_tokenizer_part(fails, tmp_path, part, value):
    (tmp_path / "tokenizer.json").write_text(json.dumps(files.tokenizer_json() | {part: value}))
    fails(1, ["tokenizer.json"], "tokenize", "--model", tmp_path, input="hello")


def test_tokenizer_pattern(fails, tmp_path):
    split = {"type": "Split", "pattern": {"Regex": "(unclosed"}, "behavior": "Isolated", "invert": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(files.tokenizer_json() | {"pre_tokenizer": split}))
    fails(1, ["tokenizer.json"], "tokenize", "--model", tmp_path, input="hello")


@pytest.mark.parametrize("ids", ["x", "1 x", "96", "-1", "99999999999999999999"])
def test_ids_to_decode(fails, good_folder, ids):
    fails(1, ["token id"], "tokenize", "--model", good_folder, "--decode", input=ids)
