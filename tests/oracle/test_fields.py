"""Fields of config.json that have no sensible value are refused with one line, and null is what mlx-lm takes it for."""

import json

import architectures
import pytest
from mlx_lm.utils import load_model
from test_architectures import check_same

REFUSED = [
    ("llama4", "floor_scale", 0),
    ("llama4", "attention_chunk_size", 0),
    ("llama4", "num_experts_per_tok", 2),
    ("nemotron-nas", "block_configs", [{"attention": {"no_op": True}, "ffn": {"no_op": True}}] * 4),
    ("nemotron-nas", "hidden_act", "tanh"),
    ("gpt_neox", "rotary_pct", 1e300),
    ("gptj", "rotary_dim", 7),
]


def change(folder, model_type, key, value):
    """The tiny checkpoint with another value of the field."""
    made = architectures.get(model_type) / "plain"
    config = json.loads((made / "config.json").read_text())
    config.get("text_config", config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").symlink_to(made / "model.safetensors")


@pytest.mark.parametrize("model_type, key, value", REFUSED)
def test_refused(run, tmp_path, model_type, key, value):
    change(tmp_path, model_type, key, value)
    done = run("generate", "--model", tmp_path, "--prompt-ids", "1", "--ids")
    assert done.returncode == 1 and f'"{key}"' in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("model_type, key", [("gptj", "rotary_dim"), ("llama4", "attn_temperature_tuning")])
def test_null(ours, tmp_path, model_type, key):
    change(tmp_path, model_type, key, None)
    wanted = architectures.generate(load_model(tmp_path)[0], architectures.LONG)
    check_same(ours(tmp_path, architectures.LONG, architectures.N, prefill_step_size=architectures.STEP), wanted)
