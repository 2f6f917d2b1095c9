"""mlx-lm's answers for a tiny random checkpoint of each architecture, made once and kept in build/oracle.

architectures.json has a config.json per model_type that mlx-lm runs on a CPU. The weights are random, around what mlx-lm
starts with, and a seed is taken with which greedy choices do not hang on the last bits.
"""

import copy
import fcntl
import hashlib
import json
import pathlib
import shutil

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.generate import generate_step
from mlx_lm.utils import _get_classes, load_model, save_config

mx.disable_compile()  # the results are the same, and it would start a C++ compiler for every fused expression

HERE = pathlib.Path(__file__).resolve().parent
KEPT = HERE.parent.parent / "build" / "oracle"
CONFIGS = json.loads((HERE / "architectures.json").read_text())
N = 24
STEP = 7  # tokens per prefill chunk
LONG = [(i * 37 + 11) % 128 for i in range(17)]
# The gap between the two best logits, as a part of the logits' range.
SMALLEST_GAP = 1e-3
GROUP = 32

# What is asked of each checkpoint: name -> the prompt, whether its weights have 4 bits, and
# generate_step's options.
CASES = {
    "one token": ([5], False, {}),
    "prompt": (LONG, False, {}),
    "4 bits": (LONG, True, {}),
    "rotating": (LONG, False, dict(max_kv_size=10)),
    "quantized cache": (LONG, False, dict(kv_bits=8, kv_group_size=GROUP, quantized_kv_start=5)),
}

# Twice as wide, so that groups of 32 fit into rows and heads.
WIDTHS = {"hidden_size", "intermediate_size", "head_dim", "moe_intermediate_size", "long_factor", "short_factor",
          "intermediate_size_mlp", "global_head_dim", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim",
          "qk_rope_head_dim", "v_head_dim", "shared_expert_intermediate_size", "linear_key_head_dim",
          "linear_value_head_dim", "rotary_dim", "n_embd", "n_inner", "swa_head_dim", "swa_v_head_dim",
          "hidden_size_per_layer_input", "block_ff_dim", "block_dim", "moe_shared_expert_intermediate_size",
          "query_pre_attn_scalar", "mamba_head_dim", "expert_hidden_dim", "model_dim"}


def widen(config):
    if isinstance(config, list):
        return [widen(item) for item in config]
    if not isinstance(config, dict):
        return config

    def wide(key, value):
        if key not in WIDTHS or value is None or isinstance(value, bool):
            return widen(value)
        if isinstance(value, list):
            return [item for item in value for _ in range(2)] if "factor" in key else [2 * item for item in value]
        return 2 * value

    return {key: wide(key, value) for key, value in config.items()}


def random_parameter(path, old):
    noise = mx.random.normal(old.shape)
    leaf = path.split(".")[-1]
    if leaf == "bias" or "correction_bias" in path or "expert_bias" in path:
        return 0.3 * noise
    if old.ndim < 2 or leaf not in ("weight", "gate_up_proj", "down_proj"):
        return old.astype(mx.float32) + 0.2 * noise
    if "conv" in path:
        return 0.6 * noise
    if "embed" in path or "wte" in path:
        return noise
    strength = 2.0 if any(name in path for name in ("q_proj", "k_proj", "qkv", "q_a_", "q_b_")) else 3.0
    return strength * old.shape[-1] ** -0.5 * noise


def make(folder, config, seed, bits=None):
    config = copy.deepcopy(config)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(copy.deepcopy(config)))
    mx.random.seed(seed)
    model.update(tree_map_with_path(random_parameter, model.parameters()))
    if bits:
        nn.quantize(model, GROUP, bits, class_predicate=lambda path, m: hasattr(m, "to_quantized") and
                    m.weight.shape[-1] % GROUP == 0)
        config["quantization"] = dict(bits=bits, group_size=GROUP)
    folder.mkdir(parents=True)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    save_config(config, folder / "config.json")


def generate(model, prompt, **options):
    rows = []

    def keep(_, logits):
        rows.append(logits)
        return logits

    ids = [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=N, logits_processors=[keep],
                                               prefill_step_size=STEP, **options)]
    return ids, np.array(mx.concatenate(rows[:N]).astype(mx.float32))


def is_clear(logits):
    """Is no choice among these a close one, and is every number finite?"""
    if not np.isfinite(logits).all():
        return False
    best = np.sort(logits, axis=1)[:, -2:]
    return ((best[:, 1] - best[:, 0]) > SMALLEST_GAP * np.ptp(logits)).all()


def answer(folder, name):
    prompt, _, options = CASES[name]
    try:
        return generate(load_model(folder)[0], prompt, **options)
    except Exception as error:  # what mlx-lm refuses, or cannot do, is an answer, too
        if not options:
            raise
        return type(error).__name__, str(error)


def make_all(folder, config):
    """The two checkpoints and the answers to all cases, with the first seed whose choices are clear."""
    for seed in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        make(folder / "plain", config, seed)
        make(folder / "4-bit", config, seed, bits=4)
        answers = {name: answer(folder / ("4-bit" if case[1] else "plain"), name) for name, case in CASES.items()}
        if all(is_clear(answers[name][1]) for name, case in CASES.items() if not case[2]):
            break
    else:
        raise AssertionError("no seed gives clear choices")
    for name, (ids, logits) in answers.items():
        if isinstance(ids, str):
            (folder / f"{name}.error").write_text(f"{ids}: {logits}")
        else:
            np.savez(folder / f"{name}.npz", ids=ids, logits=logits)
    (folder / "done").touch()


def widened(config):
    """The wide variant, where mlx-lm can run it; else the config itself."""
    wide = widen(config)
    try:
        model_class, args_class = _get_classes(copy.deepcopy(wide))
        model = model_class(args_class.from_dict(copy.deepcopy(wide)))
        mx.eval(model(mx.array([[1, 2, 3]])))
        return wide
    except Exception:
        return config


def get(model_type):
    """The folder of the checkpoints and answers for CONFIGS[model_type]."""
    text = json.dumps(CONFIGS[model_type]) + mlx_lm.__version__ + mx.__version__ + pathlib.Path(__file__).read_text()
    folder = KEPT / f"{model_type}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / f"{model_type}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes: the first makes it, the others wait
        if not (folder / "done").exists():
            make_all(folder, widened(CONFIGS[model_type]))
    return folder


def load(folder, name):
    """(ids, logits) of a case, or ("error", text)."""
    error = folder / f"{name}.error"
    if error.exists():
        return "error", error.read_text()
    answers = np.load(folder / f"{name}.npz")
    return answers["ids"].tolist(), answers["logits"]
