"""Every architecture of the registry gives mlx-lm's ids and logits, and takes the caches that mlx-lm takes."""

import copy
import json
import os
import re
import subprocess

import architectures
import mlx.core as mx
import numpy as np
import pytest

F32_TOLERANCE = 1e-4
QUANTIZED_TOLERANCE = 4e-2  # see test_kv_cache.py
REFUSED = 2
# What mlx-lm does and this program refuses.
NOT_YET = {("mistral3", "rotating"): "windows within a rotating cache of another size"}


PROGRAM = os.environ.get("MLXBENCH", str(architectures.HERE.parent.parent / "build" / "mlxbench"))


def registered():
    """The model types that `mlxbench models` lists."""
    try:
        listed = subprocess.run([PROGRAM, "models", "--markdown"], capture_output=True, text=True).stdout
    except OSError:  # the fixture `run` says that it is not there
        listed = ""
    return re.findall(r"^\| `(\S+)` \|", listed, re.M)


REGISTERED = registered()


def check_same(found, wanted):
    assert found[0] == wanted[0]
    assert np.abs(found[1] - wanted[1]).max() <= F32_TOLERANCE * np.ptp(wanted[1])


def check_near(found, wanted):
    """As check_same, but a choice may differ where mlx-lm's two best are within the tolerance; what follows is not
    compared, as it answers another question."""
    tolerance = QUANTIZED_TOLERANCE * np.ptp(wanted[1])
    rows = next((i for i in range(architectures.N) if found[0][i] != wanted[0][i]), architectures.N)
    if rows < architectures.N:
        assert wanted[1][rows][wanted[0][rows]] - wanted[1][rows][found[0][rows]] <= tolerance
    assert np.abs(found[1] - wanted[1])[:rows + 1].max() <= tolerance


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
@pytest.mark.parametrize("case", architectures.CASES)
@pytest.mark.parametrize("model_type", [name for name in sorted(architectures.CONFIGS) if name in REGISTERED])
def test_as_mlx_lm(ours, run, model_type, case, engine):
    if (model_type, case) in NOT_YET:
        pytest.skip(f"not supported yet: {NOT_YET[model_type, case]}")
    answers = architectures.get(model_type)
    prompt, four_bits, options = architectures.CASES[case]
    model = answers / ("4-bit" if four_bits else "plain")
    wanted = architectures.load(answers, case)
    options = dict(options, engine=engine, prefill_step_size=architectures.STEP)
    if wanted[0] == "error":
        arguments = [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value)]
        done = run("generate", "--model", model, "--prompt-ids", ",".join(map(str, prompt)), "--ids", "--max-tokens",
                   architectures.N, "--ignore-eos", *arguments)
        assert (done.returncode, done.stdout) == (REFUSED, ""), f"mlx-lm: {wanted[1]}"
        return
    found = ours(model, prompt, architectures.N, **options)
    # States are never quantized, and what stands beside them is not, either.
    quantized = "kv_bits" in options and not np.array_equal(wanted[1], architectures.load(answers, "prompt")[1])
    (check_near if quantized else check_same)(found, wanted)


@pytest.mark.parametrize("model_type, said", [("mamba", True), ("falcon_h1", True), ("deepseek_v32", True),
                                              ("jamba", False), ("qwen2", False)])
def test_kv_bits_without_effect(run, model_type, said):
    """It is said once where mlx-lm leaves all caches as they are."""
    model = architectures.get(model_type) / "plain"
    done = run("generate", "--model", model, "--prompt-ids", "1,2", "--ids", "-n", 2, "--kv-bits", 8,
               "--kv-group-size", architectures.GROUP, check=True)
    assert done.stderr.count("kv_bits has no effect") == said
    done = run("--engine", "cpu", "--model", model, "-np", 4, "-n", 2, "--kv-bits", 8, "--kv-group-size",
               architectures.GROUP, "-o", "jsonl", "--prompt-tokens", "random", "-r", 3, check=True)
    assert done.stderr.count("kv_bits has no effect") == said
    assert json.loads(done.stdout.splitlines()[0])["kv_bits"] == (None if said else 8)


WRONG = [0, -1, 2**40, 1e30, "x", [], None]


@pytest.mark.parametrize("model_type", [name for name in sorted(architectures.CONFIGS) if name in REGISTERED])
def test_wrong_fields(run, tmp_path, model_type):
    """A field of config.json that says what cannot be: one line or none, and never a crash."""
    made = architectures.get(model_type) / "plain"
    config = json.loads((made / "config.json").read_text())
    (tmp_path / "model.safetensors").symlink_to(made / "model.safetensors")
    random = np.random.default_rng(len(model_type))
    for _ in range(12):
        wrong = copy.deepcopy(config)
        fields = wrong.get("text_config", wrong)
        key = random.choice([key for key in fields if key != "model_type"])
        fields[key] = WRONG[random.integers(len(WRONG))]
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        done = run("generate", "--engine", "cpu", "--model", tmp_path, "--prompt-ids", "1,2,3", "--ids", "-n", 2)
        said = [line for line in done.stderr.splitlines() if ": note: " not in line]
        assert done.returncode in (0, 1, 2) and len(said) == (done.returncode > 0), f"{key}: {fields[key]}"


def test_division_by_a_field(run, tmp_path):
    made = architectures.get("gemma3_text") / "plain"
    config = json.loads((made / "config.json").read_text())
    (tmp_path / "model.safetensors").symlink_to(made / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config | dict(sliding_window_pattern=0)))
    done = run("generate", "--engine", "cpu", "--model", tmp_path, "--prompt-ids", "1,2,3", "--ids", "-n", 2)
    assert done.returncode == 1 and '"sliding_window_pattern"' in done.stderr and len(done.stderr.splitlines()) == 1


def test_others_are_refused(run, tmp_path):
    """What mlx-lm runs and this program does not yet: said at once, and listed here."""
    missing = sorted(set(architectures.CONFIGS) - set(REGISTERED))
    for model_type in missing:
        (tmp_path / "config.json").write_text(json.dumps(architectures.CONFIGS[model_type]))
        mlx_like(tmp_path)
        done = run("generate", "--model", tmp_path, "--prompt-ids", "1", "--ids")
        assert done.returncode == 1 and f'"{model_type}" is not known' in done.stderr
    if missing:
        pytest.skip(f"not in the registry yet: {', '.join(missing)}")


def mlx_like(folder):
    mx.save_safetensors(str(folder / "model.safetensors"), {"a": mx.zeros(1)})


def test_table(run):
    """docs/models.md has the registry's table; `mlxbench models --markdown` prints it."""
    document = (architectures.HERE.parent.parent / "docs" / "models.md").read_text()
    assert run("models", "--markdown", check=True).stdout in document
