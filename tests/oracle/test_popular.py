"""What most users download: config.json with all the fields that its publisher and transformers write (popular.json, at
tiny sizes), converted to 4 bits by mlx-lm's own quantize_model, with vision tensors beside it as mlx-vlm leaves them.
The ids and logits are mlx-lm's on both engines."""

import json

import architectures
import pytest
from converted import POPULAR, convert
from mlx_lm.utils import load_model
from test_architectures import check_same

# gpt-oss as its most loaded conversion has it: experts stay in mxfp4, all else has 8 bits.
MXFP4 = dict(bits=4, group_size=32, mode="mxfp4")


def check(ours, tmp_path, config, **options):
    for seed in range(20):
        folder = tmp_path / str(seed)
        convert(config, seed, folder, **options)
        wanted = architectures.generate(load_model(folder)[0], architectures.LONG)
        if architectures.is_clear(wanted[1]):
            break
    else:
        pytest.fail("no seed gives clear choices")
    for engine in "cpu", "mlx":
        check_same(ours(folder, architectures.LONG, architectures.N, prefill_step_size=architectures.STEP,
                        engine=engine), wanted)
    return folder


@pytest.mark.parametrize("name", POPULAR)
def test_converted(ours, tmp_path, name):
    folder = check(ours, tmp_path, POPULAR[name], group_size=64, bits=4)
    written = json.loads((folder / "config.json").read_text())
    assert written["quantization"] == written["quantization_config"]


def test_gpt_oss_with_two_kinds(ours, tmp_path):
    def kind(path, module):
        return MXFP4 if ".experts." in path else dict(bits=8, group_size=64)

    folder = check(ours, tmp_path, POPULAR["gpt_oss"], **MXFP4, quant_predicate=kind)
    assert "model.layers.0.self_attn.q_proj" in json.loads((folder / "config.json").read_text())["quantization"]
