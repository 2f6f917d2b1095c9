"""The column experts_touched against mlx-lm's own routers: which experts its layers were called with, same prompt."""

import json

import architectures
import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import SwitchGLU
from mlx_lm.utils import load_model

EXPERTS = 48
FIELDS = {"qwen3_moe": dict(num_experts=EXPERTS), "deepseek_v3": dict(n_routed_experts=EXPERTS)}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PROMPT = "mixture of experts"
STEP = 5  # tokens per prefill chunk


@pytest.fixture(scope="module", params=FIELDS)
def model(request, tmp_path_factory):
    """A model whose tokenizer has a token per letter, so that the ids of a text are known: a folder."""
    folder = tmp_path_factory.mktemp("touched") / "model"
    architectures.make(folder, architectures.CONFIGS[request.param] | FIELDS[request.param], seed=3)
    vocabulary = {"Ġ": 0} | {letter: i + 1 for i, letter in enumerate(LETTERS)}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))
    return folder


def prompt_ids(first, n, n_sequences):
    """As --prompt-tokens text makes them: the text again and again; each sequence begins a token later."""
    ids = [(" " + LETTERS).index(letter) for letter in PROMPT]
    return [[ids[(s + first + i) % len(ids)] for i in range(n)] for s in range(n_sequences)]


def touched(folder, monkeypatch, depth, n_prompt, n, batch):
    """Distinct experts, the mean over layers, of mlx-lm's prefill and n tokens; those of the depth do not count."""
    calls = []  # of one forward pass: the indices of each layer
    original = SwitchGLU.__call__

    def keep(self, x, indices):
        calls.append(indices)
        return original(self, x, indices)

    monkeypatch.setattr(SwitchGLU, "__call__", keep)
    model = load_model(folder)[0]
    cache = make_prompt_cache(model)
    layers = {}

    def forward(ids, counts=True, is_chunk=False):
        calls.clear()
        logits = model(mx.array(ids), cache=cache)
        mx.eval([c.state for c in cache])
        # Of a chunk mlx-lm evaluates cache states alone, so the last layer's experts never run.
        for i, indices in enumerate(calls[:-1] if is_chunk else calls):
            if counts:
                layers.setdefault(i, set()).update(indices.flatten().tolist())
        return mx.argmax(logits[:, -1], axis=-1).tolist()

    if depth:
        forward(prompt_ids(0, depth, batch), counts=False)
    ids = prompt_ids(depth, n_prompt, batch)
    for first in range(0, n_prompt - 1, STEP):
        forward([row[first:min(first + STEP, n_prompt - 1)] for row in ids], is_chunk=True)
    last, chosen = [row[-1] for row in ids], []
    for _ in range(n):
        last = forward([[token] for token in last])
        chosen.append(last)
    return sum(map(len, layers.values())) / len(layers), chosen


def rows_of(run, folder, engine, *arguments):
    done = run("bench", "-m", folder, "--engine", engine, "--prompt", PROMPT, "-pss", STEP, "-o", "jsonl", *arguments,
               check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
@pytest.mark.parametrize("depth, n_prompt, n, batch", [(0, 1, 1, 1), (0, 9, 4, 1), (7, 3, 6, 1), (6, 8, 3, 3)])
def test_as_mlx_lm(run, model, monkeypatch, engine, depth, n_prompt, n, batch):
    wanted, ids = touched(model, monkeypatch, depth, n_prompt, n, batch)
    assert 2 <= wanted < 0.9 * EXPERTS  # else all are touched, whatever is counted
    rows = rows_of(run, model, engine, "-d", depth, "-np", n_prompt, "-n", n, "-b", batch, "-r", 2)
    assert [row["kind"] for row in rows] == ["run", "run", "summary"]
    assert rows[0]["token_ids"] == [token for step in ids for token in step]
    assert [row["experts_touched"] for row in rows] == [pytest.approx(wanted, abs=0.0051)] * 3


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_turns(run, model, engine):
    """Configurations that take turns keep their own, here and in a process of their own."""
    rows = {how: [row for row in rows_of(run, model, engine, "-np", "2,12", "-n", 3, "-r", 3, "--isolate", how)
                  if row["kind"] == "run"] for how in ("none", "models")}
    found = {how: {(row["n_prompt"], row["experts_touched"]) for row in of} for how, of in rows.items()}
    few, many = (found for _, found in sorted(found["none"]))
    assert few < many
    assert found["none"] == found["models"] and [len(of) for of in rows.values()] == [6, 6]


def test_nothing_to_note(run, model, tmp_path):
    """It is unset without an unmeasured run, and for models without experts."""
    assert [row["experts_touched"] for row in rows_of(run, model, "cpu", "-np", 3, "-n", 2, "--warmup", 0)] == [None] * 2
    architectures.make(tmp_path / "dense", architectures.CONFIGS["qwen3"], seed=3)
    for engine in ("cpu", "mlx"):
        rows = rows_of(run, tmp_path / "dense", engine, "-np", 3, "-n", 2, "--prompt-tokens", "random")
        assert [row["experts_touched"] for row in rows] == [None] * 2


def test_kept(run, model, tmp_path):
    """What it says of a run survives each way through a file: verify, and --resume."""
    shared, lines = tmp_path / "shared.json", tmp_path / "runs.jsonl"
    rows_of(run, model, "cpu", "-np", 3, "-n", 2, "-r", 2, "-o", f"share:{shared}", "-o", f"jsonl:{lines}")
    assert run("verify", shared).returncode == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    more = rows_of(run, model, "cpu", "-np", 3, "-n", 2, "-r", 4, "--resume", lines)
    assert [row["kind"] for row in more] == ["run"] * 4 + ["summary"]
    assert {row["experts_touched"] for row in more} == {rows[0]["experts_touched"]}
