"""Broken checkpoint folders: one line that names what is wrong, never a crash."""

import json
import os
import random

import files
import pytest


def test_the_good_one_works(run, good_folder):
    done = run("generate", "--model", good_folder, "--prompt-ids", "1,2,3", "--ids", "--max-tokens", 4,
               "--ignore-eos", check=True)
    assert len(done.stdout.split()) == 4
    assert done.stderr == ""


def test_missing_folder(open_fails, tmp_path):
    open_fails(tmp_path / "nothing", "nothing")


def test_empty_folder(open_fails, tmp_path):
    open_fails(tmp_path, "config.json")


def test_no_weights(open_fails, tmp_path):
    folder = files.write_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    open_fails(folder, "safetensors")


def test_config_is_a_folder(open_fails, tmp_path):
    folder = files.write_folder(tmp_path)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    open_fails(folder, "config.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_unreadable_file(open_fails, tmp_path, name):
    folder = files.write_folder(tmp_path)
    (folder / name).chmod(0)
    open_fails(folder, name)


# ---- config.json ----

@pytest.mark.parametrize("text", ["", "{", "hello", "[1, 2]", "3", '{"a": 1} x', "[" * 100000, '{"a":' * 100000,
                                  "\x00\x01", '{"model_type": "llama"', '{"model_type": 7}', "{}"])
def test_config_is_no_configuration(open_fails, tmp_path, text):
    folder = files.write_folder(tmp_path)
    (folder / "config.json").write_text(text)
    open_fails(folder, "config.json")


@pytest.mark.parametrize("model_type", [b"\xff\xfe", b"a\\nb", b"\\u001b[31m", b"\\u0000", b"\x01", b"x" * 100000])
def test_hostile_text_in_a_message(open_fails, tmp_path, model_type):
    """What a file holds may be quoted, but neither splits the line nor reaches the terminal as a command."""
    folder = files.write_folder(tmp_path)
    (folder / "config.json").write_bytes(b'{"model_type": "' + model_type + b'"}')
    done = open_fails(folder, "config.json")
    assert done.stderr.rstrip("\n").isprintable()


def test_unknown_model_type_lists_the_known(open_fails, tmp_path):
    open_fails(files.write_folder(tmp_path, config=files.CONFIG | {"model_type": "nonesuch"}), "nonesuch", "llama",
               "qwen2", "qwen3", "gemma3_text", "qwen3_moe")


@pytest.mark.parametrize("field", ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
                                   "num_attention_heads", "vocab_size", "rms_norm_eps"])
def test_config_lacks_a_field(open_fails, tmp_path, field):
    config = {name: value for name, value in files.CONFIG.items() if name != field}
    open_fails(files.write_folder(tmp_path, config=config), "config.json", field)


SIZES = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "vocab_size", "head_dim"]


@pytest.mark.parametrize("value", [0, -1, 10**9, 2**31, 2**62, 10**18, 1e300, 1.5, "64", [64], {}, True])
@pytest.mark.parametrize("field", SIZES)
def test_absurd_sizes(open_fails, tmp_path, field, value):
    open_fails(files.write_folder(tmp_path, config=files.CONFIG | {field: value}))


@pytest.mark.parametrize("change", [
    {"num_attention_heads": 2, "num_key_value_heads": 3}, {"head_dim": 31}, {"rms_norm_eps": "small"},
    {"rms_norm_eps": -1}, {"rope_theta": 0}, {"rope_theta": -5}, {"rope_theta": "x"},
    {"rope_scaling": {"rope_type": "nonesuch", "factor": 2}}, {"rope_scaling": {"rope_type": "linear", "factor": 0}},
    {"rope_scaling": {"rope_type": "linear"}}, {"rope_scaling": "linear"}, {"rope_scaling": [1]},
    {"rope_scaling": {"rope_type": "llama3", "factor": 8}},
    {"quantization": {"bits": 7, "group_size": 64}, "x": 1}, {"quantization": {"bits": 4, "group_size": 0}},
    {"quantization": {"bits": "4", "group_size": 64}}, {"quantization": 4},
    {"quantization": {"bits": 4, "group_size": 64, "mode": "mxfp4"}},
    {"tie_word_embeddings": "yes"}, {"tie_word_embeddings": False},
])
def test_absurd_fields(run, tmp_path, change):
    """mlx-lm would ignore some of these, too; none may be a crash, and a refusal is one line."""
    done = run("generate", "--model", files.write_folder(tmp_path, config=files.CONFIG | change), "--prompt-ids",
               "1,2", "--ids", "--max-tokens", 2)
    assert done.returncode in (0, 1)
    assert len(done.stderr.splitlines()) == done.returncode


# ---- safetensors ----

def good():
    return files.safetensors_parts(files.weights())


NAME = "model.layers.1.mlp.up_proj.weight"


def test_missing_tensor(open_fails, tmp_path):
    header, data = good()
    del header[NAME]
    open_fails(files.write_folder(tmp_path, file=files.safetensors_bytes(header, data)), NAME)


def test_surplus_tensor(open_fails, tmp_path):
    header, data = good()
    header["model.layers.9.mlp.up_proj.weight"] = header[NAME]
    header, data = files.safetensors_parts(files.weights() | {"model.extra.weight": files.weights()[NAME]})
    open_fails(files.write_folder(tmp_path, file=files.safetensors_bytes(header, data)), "model.extra.weight")


def test_misshapen_tensor(open_fails, tmp_path):
    header, data = good()
    header[NAME]["shape"] = [32, 128]
    open_fails(files.write_folder(tmp_path, file=files.safetensors_bytes(header, data)), NAME, "[32, 128]", "[64, 64]")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 20, 500, -1, -100])
def test_truncated(open_fails, tmp_path, size):
    whole = files.safetensors_bytes(*good())
    open_fails(files.write_folder(tmp_path, file=whole[:size]), "model.safetensors")


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_header_length(open_fails, tmp_path, length):
    open_fails(files.write_folder(tmp_path, file=files.safetensors_bytes(*good(), length=length)),
               "model.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "{]", '{"a": 1}', '{"a": {}}', "[" * 50000])
def test_header_text(open_fails, tmp_path, text):
    open_fails(files.write_folder(tmp_path, file=files.safetensors_bytes(text, good()[1])), "model.safetensors")


@pytest.mark.parametrize("change", [
    {"data_offsets": [0, 10**9]}, {"data_offsets": [10**9, 10**9 + 16384]}, {"data_offsets": [16384, 0]},
    {"data_offsets": [-16384, 0]}, {"data_offsets": [0, 2**63]}, {"data_offsets": [2**64 - 16384, 2**64]},
    {"data_offsets": [1e300, 2e300]}, {"data_offsets": [0, 100]}, {"data_offsets": [0]}, {"data_offsets": []},
    {"data_offsets": [0, 1, 2]}, {"data_offsets": "0"}, {"data_offsets": [0.5, 16384.5]}, {"data_offsets": None},
    {"data_offsets": [0, 16384]},  # overlaps the embedding
    {"dtype": "F4"}, {"dtype": "F64"}, {"dtype": "I32"}, {"dtype": "U32"}, {"dtype": 3}, {"dtype": None},
    {"dtype": ""}, {"dtype": "BF16"}, {"shape": [64]}, {"shape": []}, {"shape": [64, 64, 1]}, {"shape": [0, 64]},
    {"shape": [-64, -64]}, {"shape": [2**32, 2**32]}, {"shape": [2**62, 4]}, {"shape": [1] * 20 + [64, 64]},
    {"shape": "64"}, {"shape": None}, {"shape": [64.5, 64]}, {"shape": ["64", 64]},
])
def test_tensor_entry(open_fails, tmp_path, change):
    header, data = good()
    header[NAME] |= change
    for key in [key for key, value in change.items() if value is None]:
        del header[NAME][key]
    open_fails(files.write_folder(tmp_path, file=files.safetensors_bytes(header, data)), NAME)


def sharded(folder, weight_map=None):
    """The weights in two files with an index."""
    files.write_folder(folder)
    (folder / "model.safetensors").unlink()
    tensors = files.weights()
    index = {}
    for i in range(2):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        part = dict(list(tensors.items())[i::2])
        (folder / file).write_bytes(files.safetensors_bytes(*files.safetensors_parts(part)))
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index}) if weight_map is None else weight_map
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


def test_shards_work(run, tmp_path):
    run("generate", "--model", sharded(tmp_path), "--prompt-ids", "1", "--ids", "--max-tokens", 1, check=True)


def test_missing_shard(open_fails, tmp_path):
    folder = sharded(tmp_path)
    (folder / "model-00002-of-00002.safetensors").unlink()
    open_fails(folder, "model-00002-of-00002.safetensors")


def test_tensor_in_two_shards(run, tmp_path):
    """The index decides: a file that it does not name is not read, and a note says so."""
    folder = sharded(tmp_path)
    (folder / "model-00003-of-00003.safetensors").write_bytes(
        (folder / "model-00002-of-00002.safetensors").read_bytes())
    done = run("generate", "--model", folder, "--prompt-ids", "1", "--ids", "--max-tokens", 1)
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["mlxbench: note: model-00003-of-00003.safetensors was left out: "
                                        "model.safetensors.index.json does not name it"]


def test_changed_bytes(run, tmp_path):
    """Any byte of the header may be anything: the program ends by itself, with at most one line."""
    whole = files.safetensors_bytes(*good())
    header = len(whole) - len(good()[1])
    rng = random.Random(7)
    folder = files.write_folder(tmp_path)
    for _ in range(100):
        broken = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            broken[rng.randrange(header)] = rng.choice([rng.randrange(256), *b'"{}[]:,-0189e.'])
        (folder / "model.safetensors").write_bytes(broken)
        done = run("generate", "--model", folder, "--prompt-ids", "1,2", "--ids", "--max-tokens", 1)
        assert done.returncode in (0, 1), (bytes(broken[:header]), done.stderr)
        assert len(done.stderr.splitlines()) == done.returncode
