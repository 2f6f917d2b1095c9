"""Broken GGUF files: one line that names what is wrong, never a crash."""

import random
import struct

import files
import gguf
import pytest


def test_the_good_one_works(run, good_gguf):
    done = run("generate", "--model", good_gguf, "--prompt-ids", "1,2,3", "--ids", "--max-tokens", 4,
               "--ignore-eos", check=True)
    assert len(done.stdout.split()) == 4


@pytest.fixture(scope="module")
def good(good_gguf):
    return good_gguf.read_bytes()


@pytest.fixture
def broken_fails(open_fails, tmp_path):
    """broken_fails(bytes, *words): that file is refused with its name and the words."""

    def broken_fails(data, *words):
        path = tmp_path / "broken.gguf"
        path.write_bytes(data)
        return open_fails(path, "broken.gguf", *words)

    return broken_fails


def patched(data, at, form, value):
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form):]


@pytest.mark.parametrize("magic", [b"GGML", b"\0\0\0\0", b"FUGG", b"gguf"])
def test_magic(broken_fails, good, magic):
    broken_fails(magic + good[4:])


@pytest.mark.parametrize("version", [0, 1, 4, 2**31, 3 << 24])
def test_version(broken_fails, good, version):
    broken_fails(patched(good, 4, "<I", version), "version")


@pytest.mark.parametrize("at", [8, 16], ids=["tensors", "metadata"])
@pytest.mark.parametrize("count", [10**4, 2**31, 2**40, 2**60, 2**63, 2**64 - 1])
def test_huge_counts(broken_fails, good, at, count):
    broken_fails(patched(good, at, "<Q", count))


@pytest.mark.parametrize("length", [10**6, 2**31, 2**62, 2**63, 2**64 - 1])
def test_overlong_strings(broken_fails, good, length):
    broken_fails(patched(good, 24, "<Q", length))  # the first key
    value = good.index(b"general.architecture") + len(b"general.architecture") + 4
    broken_fails(patched(good, value, "<Q", length))
    tensor = good.index(b"token_embd.weight") - 8
    broken_fails(patched(good, tensor, "<Q", length))


@pytest.mark.parametrize("count", [10**7, 2**31, 2**61, 2**63, 2**64 - 1])
def test_huge_arrays(broken_fails, good, count):
    for name in [b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type"]:
        broken_fails(patched(good, good.index(name) + len(name) + 4 + 4, "<Q", count))


def test_arrays_in_arrays(broken_fails):
    """Type 9 within type 9 without end must not recurse without end."""
    key = b"a"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + key + struct.pack("<I", 9)
    broken_fails(head + struct.pack("<IQ", 9, 1) * 100000)


@pytest.mark.parametrize("kind", [13, 255, 2**31])
def test_unknown_value_type(broken_fails, good, kind):
    broken_fails(patched(good, good.index(b"general.architecture") + len(b"general.architecture"), "<I", kind))


def tensor_info(data, name):
    """Offset of what follows a tensor's name: n_dims, dims, type, offset."""
    return data.index(name) + len(name)


@pytest.mark.parametrize("dims", [0, 5, 9, 2**31])
def test_number_of_dimensions(broken_fails, good, dims):
    broken_fails(patched(good, tensor_info(good, b"blk.0.attn_q.weight"), "<I", dims))


@pytest.mark.parametrize("dim", [0, 3, 2**31, 2**62, 2**64 - 1])
def test_dimension(broken_fails, good, dim):
    broken_fails(patched(good, tensor_info(good, b"blk.0.attn_q.weight") + 4, "<Q", dim), "attn_q")


@pytest.mark.parametrize("offset", [7, 2**20, 2**40, 2**63, 2**64 - 32])
def test_offset(broken_fails, good, offset):
    broken_fails(patched(good, tensor_info(good, b"blk.0.attn_q.weight") + 4 + 16 + 4, "<Q", offset), "attn_q")


@pytest.mark.parametrize("kind", [4, 40, 999, 2**31])
def test_unknown_tensor_type(broken_fails, good, kind):
    broken_fails(patched(good, tensor_info(good, b"blk.0.attn_q.weight") + 4 + 16, "<I", kind), "attn_q")


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.Q2_K, gguf.GGMLQuantizationType.Q3_K,
                                  gguf.GGMLQuantizationType.IQ4_NL])
def test_unsupported_tensor_type_is_named(open_fails, tmp_path, kind):
    open_fails(files.write_gguf(tmp_path / "k.gguf", raw_dtype=kind), "blk.0.attn_q", kind.name)


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "feed_forward_length", "head_count", "rms_eps"])
def test_missing_metadata(open_fails, tmp_path, key):
    open_fails(files.write_gguf(tmp_path / "m.gguf", skip=[key]), "m.gguf")


def test_truncated_anywhere(broken_fails, good):
    rng = random.Random(3)
    for size in [0, 1, 3, 4, 8, 23, 24, 25, 40, 100, 1000, len(good) - 1, *rng.sample(range(len(good)), 20)]:
        broken_fails(good[:size])


def test_changed_bytes(run, good, tmp_path):
    header = good.index(b"output_norm.weight") + 64 if b"output_norm.weight" in good else 4096
    rng = random.Random(5)
    path = tmp_path / "broken.gguf"
    for _ in range(100):
        broken = bytearray(good)
        for _ in range(rng.choice([1, 1, 3])):
            broken[rng.randrange(header)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        path.write_bytes(broken)
        done = run("generate", "--model", path, "--prompt-ids", "1,2", "--ids", "--max-tokens", 1)
        assert done.returncode in (0, 1), done.stderr
        assert len([line for line in done.stderr.splitlines() if " note: " not in line]) == done.returncode
