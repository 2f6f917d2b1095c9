"""4-bit checkpoints whose other numbers are BF16, as people have them, on engine/mlx: on the CPU every logit is mlx-lm's, to
the last bit. So each operation is the one that mlx-lm calls, in its order and dtypes."""

import architectures
import mlx.core as mx
import pytest
from converted import POPULAR, convert
from mlx_lm.utils import load_model
from test_architectures import REGISTERED

NAMES = [*POPULAR, *(name for name in sorted(architectures.CONFIGS) if name in REGISTERED and name not in POPULAR)]


@pytest.mark.parametrize("name", NAMES)
def test_every_bit(ours, device, tmp_path, name):
    if device != "cpu":
        pytest.skip("fused kernels may round otherwise")
    config = POPULAR.get(name) or architectures.widened(architectures.CONFIGS[name])
    convert(config, 0, tmp_path / "model", dtype=mx.bfloat16, group_size=32, bits=4,
            quant_predicate=lambda path, module: True)
    wanted = architectures.generate(load_model(tmp_path / "model")[0], architectures.LONG)
    found = ours(tmp_path / "model", architectures.LONG, architectures.N, prefill_step_size=architectures.STEP,
                 engine="mlx")
    assert found[0] == wanted[0] and (found[1] == wanted[1]).all()
