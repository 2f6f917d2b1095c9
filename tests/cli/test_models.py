"""mlxbench models: every preset, family and engine, and the models in a cache laid out as the Hub's client does."""

import json
import pathlib
import re

PRESETS = pathlib.Path(__file__).resolve().parents[2] / "share" / "presets"


def cached(cache, name, config, size):
    folder = cache / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (folder / "blob").write_bytes(bytes(size))
    (snapshot / "model.safetensors").symlink_to(folder / "blob")
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
    done = run("models", env={"HF_HUB_CACHE": str(tmp_path)}, check=True)
    assert done.stderr == ""
    for preset in PRESETS.glob("*.json"):
        line = line_of(done.stdout, f"synthetic:{preset.stem} ")
        assert json.loads(preset.read_text())["model_type"] in line
    assert "1.24 billion" in line_of(done.stdout, "synthetic:llama-3.2-1b ")
    assert "30.53 billion" in line_of(done.stdout, "synthetic:qwen3-30b-a3b ")
    for family in ["llama", "qwen2", "qwen3", "gemma3_text", "qwen3_moe"]:
        assert family in line_of(done.stdout, "Families")
    engines = done.stdout.split("Engines, their versions and devices:\n")[1].splitlines()
    assert re.fullmatch(r"  cpu +\d\S* +\S+", engines[0])
    assert re.fullmatch(r"  mlx +(\d\S* +\S.*|not usable: .*mlx.*)", engines[1])
    assert line_of(done.stdout, "owner/four").split() == ["owner/four", "llama", "0.02", "GB", "4-bit", "g64"]
    assert line_of(done.stdout, "owner/plain").split()[-1] == "bfloat16"
    assert "no readable config.json" in line_of(done.stdout, "owner/broken")
    assert "no readable config.json" in line_of(done.stdout, "owner/none")


def test_empty_cache(run, tmp_path):
    done = run("models", env={"HF_HUB_CACHE": str(tmp_path / "nothing")}, check=True)
    assert done.stdout.endswith("cache:\n  none\n")


def test_help(run):
    assert "mlxbench models" in run("models", "--help", check=True).stdout
    assert run("models", "--nonsense").returncode == 2
