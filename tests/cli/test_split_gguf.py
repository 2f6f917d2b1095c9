"""GGUF models in several files open by the first; what is wrong with the others is said. Without a name for its
pre-tokenizer, a file gets llama.cpp's default."""

import files
import pytest


@pytest.fixture
def parts(tmp_path):
    files.write_gguf(tmp_path / "split.gguf", split_max_tensors=8)
    parts = sorted(tmp_path.glob("split-*-of-*.gguf"))
    assert len(parts) >= 3
    return parts


def ids(run, model):
    return run("generate", "--model", model, "--prompt-ids", "1,2,3", "--ids", "--max-tokens", 8, "--ignore-eos",
               check=True).stdout


def test_the_first_opens_all(run, parts, good_gguf):
    assert ids(run, parts[0]) == ids(run, good_gguf)


def test_another_part_is_named(open_fails, parts):
    open_fails(parts[1], parts[1].name, f"part 2 of a model in {len(parts)} files", "give the first")


def test_a_missing_part_is_named(open_fails, parts):
    parts[2].unlink()
    open_fails(parts[0], parts[2].name)


def test_another_name(open_fails, parts, tmp_path):
    moved = parts[0].rename(tmp_path / "renamed.gguf")
    open_fails(moved, "renamed.gguf", f"-00001-of-{len(parts):05}.gguf")


def test_parts_in_a_wrong_order(open_fails, parts):
    second, third = parts[1].read_bytes(), parts[2].read_bytes()
    parts[1].write_bytes(third)
    parts[2].write_bytes(second)
    open_fails(parts[0], parts[1].name, f"part 3 of {len(parts)}", f"not 2 of {len(parts)}")


def test_default_pre_tokenizer(run, tmp_path):
    model = files.write_gguf(tmp_path / "old.gguf", skip=["pre"])
    done = run("generate", "--model", model, "--prompt", "a b", "--max-tokens", 2, "--ignore-eos", check=True)
    assert "llama.cpp's default" in done.stderr
