"""What a snapshot in the cache should look like, and waiting for one that is being made."""

import os
import time

NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}


def check_snapshot(snapshot, wanted):
    """A snapshot has exactly the wanted files, each a relative link to a blob with the right bytes."""
    assert {path.name for path in snapshot.iterdir()} == set(wanted)
    for name, data in wanted.items():
        link = os.readlink(snapshot / name)
        assert link.startswith("../../blobs/") and "/" not in link.removeprefix("../../blobs/")
        assert (snapshot / name).read_bytes() == data
    refs = snapshot.parents[1] / "refs"
    assert not refs.exists() or {path.name for path in refs.iterdir()} <= {"main", "refs", "v1.0"}
    assert not list((snapshot.parents[1] / "blobs").glob("*.incomplete"))


def needed(repo_files):
    """What a run needs of a repository's files."""
    return {name: data for name, data in repo_files.items()
            if name in NEEDED or (name.startswith("model") and "/" not in name)}


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def incomplete(cache):
    return list((cache / "models--org--tiny" / "blobs").glob("*.incomplete"))
