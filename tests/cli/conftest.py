"""Fixtures of the command-line tests: small good models, and what a well-behaved failure looks like."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import files  # noqa: E402


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory):
    return files.write_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def good_gguf(tmp_path_factory):
    return files.write_gguf(tmp_path_factory.mktemp("good") / "model.gguf")


@pytest.fixture
def fails(run):
    """fails(code, words, *arguments): the program ends with code and one line on stderr that has all the words."""

    def fails(code, words, *arguments, **options):
        done = run(*arguments, **options)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert len(done.stderr) < 3000
        for word in words:
            assert str(word).lower() in done.stderr.lower()
        return done

    return fails


@pytest.fixture
def open_fails(fails):
    """open_fails(model, *words): a model that can't be used, exit code 1."""

    def open_fails(model, *words):
        return fails(1, words, "generate", "--model", model, "--prompt-ids", "1,2,3", "--ids", "--max-tokens", 2)

    return open_fails
