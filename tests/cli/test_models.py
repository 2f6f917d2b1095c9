"""mlxbench models: every preset, family and engine, and the models in a cache laid out as the Hub's client does."""

import datetime
import json
import os
import pathlib
import pty
import re
import subprocess

import files
import gguf
import pytest

PRESETS = pathlib.Path(__file__).resolve().parents[2] / "share" / "presets"


def cached(cache, name, config, size):
    folder = cache / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (folder / "blobs").mkdir()
    (folder / "blobs" / "blob").write_bytes(bytes(range(256)) * (size // 256))
    (snapshot / "model.safetensors").symlink_to("../../blobs/blob")
    if config is not None:
        (snapshot / "config.json").write_text(config)


def line_of(text, word):
    return next(line for line in text.splitlines() if word in line)


def test_what_there_is(run, tmp_path):
    cached(tmp_path, "owner/four", json.dumps({"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}),
           20_000_000)
    cached(tmp_path, "owner/plain", json.dumps({"model_type": "qwen3", "torch_dtype": "bfloat16"}), 1000)
    cached(tmp_path, "owner/broken", "{", 1000)
    cached(tmp_path, "owner/none", None, 1000)
    cached(tmp_path, "owner/wrong", json.dumps({"model_type": "\x1b[2Jevil"}), 1000)
    files.write_folder(tmp_path / ".lmstudio" / "models" / "org" / "studio")
    for name, raw in (("readable", None), ("unreadable", gguf.GGMLQuantizationType.Q2_K)):
        (tmp_path / ".lmstudio" / "models" / "org" / name).mkdir()
        files.write_gguf(tmp_path / ".lmstudio" / "models" / "org" / name / "model.gguf", raw_dtype=raw)
    done = run("models", env={"HF_HUB_CACHE": str(tmp_path), "HOME": str(tmp_path)}, check=True)
    assert done.stderr == ""
    for preset in PRESETS.glob("*.json"):
        line = line_of(done.stdout, f"synthetic:{preset.stem} ")
        assert json.loads(preset.read_text())["model_type"] in line
    assert len({line.index(" billion") for line in done.stdout.splitlines() if " billion" in line}) == 1  # one column
    assert "1.24 billion" in line_of(done.stdout, "synthetic:llama-3.2-1b ")
    assert "30.53 billion" in line_of(done.stdout, "synthetic:qwen3-30b-a3b ")
    for family in ["llama", "qwen2", "qwen3", "gemma3_text", "qwen3_moe"]:
        assert re.search(rf"^  .*\b{family}\b", done.stdout.split("Architectures")[1], re.M)
    engines = done.stdout.split("Engines, their versions and devices:\n")[1].splitlines()
    assert re.fullmatch(r"  cpu +\d\S* +\S+", engines[0])
    assert re.fullmatch(r"  mlx +(\d\S* +\S.*|not usable: .*mlx.*)", engines[1])
    today = datetime.date.today().isoformat()
    assert line_of(done.stdout, "owner/four").split()[:7] == ["owner/four", "llama", "0.02", "GB", "4-bit", "g64", today]
    assert "does not run here: " in line_of(done.stdout, "owner/four")
    assert "bfloat16" in line_of(done.stdout, "owner/plain").split()
    assert "does not run here: " in line_of(done.stdout, "owner/broken")
    assert "incomplete: missing: config.json; mlxbench pull owner/none" in line_of(done.stdout, "owner/none")
    assert "(LM Studio)" in line_of(done.stdout, "org/studio")
    assert line_of(done.stdout, "org/studio").endswith("runs here (LM Studio)")
    assert "does not run here: " in line_of(done.stdout, "owner/wrong")
    readable = line_of(done.stdout, "org/readable")
    assert readable.endswith("runs here (LM Studio)") and readable.split()[1] == "llama" and " GGUF f32 " in readable
    assert "attn_q" in line_of(done.stdout, "org/unreadable") and "Q2_K" in line_of(done.stdout, "org/unreadable")
    assert "\x1b" not in done.stdout


def test_gguf_that_opens_and_does_not_load(run, tmp_path, monkeypatch):
    """The verdict is that of a run, word for word: a tensor that no run can do without is missing."""
    weights = files.weights()
    del weights["model.layers.1.self_attn.v_proj.weight"]
    monkeypatch.setattr(files, "weights", lambda: weights)
    for folder in ("snapshots/abc/quants", "refs"):
        (tmp_path / "models--org--quants" / folder).mkdir(parents=True)
    (tmp_path / "models--org--quants" / "refs" / "main").write_text("abc")
    model = files.write_gguf(tmp_path / "models--org--quants" / "snapshots" / "abc" / "quants" / "model.gguf")
    done = run("models", env={"HF_HUB_CACHE": str(tmp_path), "HOME": str(tmp_path)}, check=True)
    refused = run("bench", "--engine", "cpu", "--model", model, "-np", 4, "-n", 2)
    why = refused.stderr.splitlines()[-1].removeprefix("mlxbench: ")
    assert refused.returncode == 1 and "v_proj" in why
    assert line_of(done.stdout, "org/quants").endswith(f"does not run here: {why}")


def test_empty_cache(run, tmp_path):
    done = run("models", env={"HF_HUB_CACHE": str(tmp_path / "nothing"), "HOME": str(tmp_path)}, check=True)
    assert done.stdout.endswith("last use):\n  none\n")


def test_without_home(mlxbench):
    env = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith(("HF_", "XDG_"))}
    done = subprocess.run([mlxbench, "models"], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0 and "synthetic:llama-3.2-1b " in done.stdout and done.stderr == ""


def test_remove(run, fails, tmp_path):
    env = {"HF_HUB_CACHE": str(tmp_path), "HOME": str(tmp_path)}
    cached(tmp_path, "owner/model", "{}", 1000)
    fails(2, ["no terminal", "--yes"], "models", "--remove", "owner/model", env=env)
    fails(1, ["not in the hugging face cache", "did you mean owner/model"], "models", "--remove", "owner/modle", "--yes",
          env=env)
    assert (tmp_path / "models--owner--model").exists()
    assert "removed owner/model" in run("models", "--remove", "owner/model", "--yes", env=env, check=True).stderr
    assert not (tmp_path / "models--owner--model").exists()


@pytest.mark.parametrize("answer, code", [("y", 0), ("n", 1), ("", 1)])
def test_remove_asks(mlxbench, tmp_path, answer, code):
    cached(tmp_path, "owner/model", "{}", 1000)
    leader, follower = pty.openpty()
    os.write(leader, (answer + "\n").encode())
    done = subprocess.run([mlxbench, "models", "--remove", "owner/model"], stdin=follower, capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_CACHE": str(tmp_path)}, timeout=60)
    os.close(leader)
    os.close(follower)
    assert done.returncode == code and "[y/N]" in done.stderr
    assert (tmp_path / "models--owner--model").exists() == (code != 0)


def test_help(run):
    assert "mlxbench models" in run("models", "--help", check=True).stdout
    assert run("models", "--nonsense").returncode == 2


# Billions of parameters of the text model, as the makers name them: some round, and some count
# other parts, too.
PARAMETERS = {"gemma-4-26b-a4b": 25.2, "glm-4.5-air": 106, "gpt-oss-20b": 20.9, "lfm2-1.2b": 1.17, "lfm2-8b-a1b": 8.3,
              "llama-3.1-8b": 8.03, "minimax-m2": 230, "ministral-3-8b": 8.4, "mistral-small-3.2-24b": 24,
              "nemotron-nano-9b-v2": 8.9, "phi-4": 14.7, "qwen3-30b-a3b": 30.5, "qwen3-next-80b-a3b": 80,
              "qwen3.5-35b-a3b": 35, "qwen3.5-4b": 4.2}


def test_presets_have_as_many_parameters_as_their_models(run):
    listed = run("models", check=True).stdout
    for name, billions in PARAMETERS.items():
        found = float(re.search(r"([\d.]+) billion", line_of(listed, f"synthetic:{name} ")).group(1))
        assert abs(found - billions) <= 0.02 * billions, name


def test_preset_that_does_not_run(run, tmp_path):
    """It is listed with the reason, and the others are, too."""
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "b.json").write_text((PRESETS / "llama-3.2-1b.json").read_text())
    (presets / "a.json").write_text(json.dumps(json.loads((presets / "b.json").read_text()) | {"model_type": "new"}))
    (presets / "c.json").write_text("{")
    done = run("models", env={"MLXBENCH_SHARE": str(tmp_path)}, check=True)
    assert 'does not run here: ' in line_of(done.stdout, "synthetic:a ")
    assert 'model_type "new" is not known' in line_of(done.stdout, "synthetic:a ")
    assert "1.24 billion" in line_of(done.stdout, "synthetic:b ")
    assert "does not run here: " in line_of(done.stdout, "synthetic:c ")
    assert "not valid JSON" in line_of(done.stdout, "synthetic:c ")


def test_preset_beyond_memory_is_refused(run):
    """A model of 457 GB as BF16, which few machines hold."""
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") > 400e9:
        pytest.skip("this machine has more than 400 GB of memory")
    done = run("--engine", "cpu", "--model", "synthetic:minimax-m2-bf16", "-np", 4, "-n", 2, "-o", "jsonl")
    assert done.returncode == 1 and re.search(r"weights take 457\.\d+ GB, but [\d.]+ GB of memory are free", done.stderr)
