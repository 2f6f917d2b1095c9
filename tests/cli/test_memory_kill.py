"""The system itself kills a child process since the memory of its control group is used up: a row says so."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
from rows import runs_of

LIMIT = 160_000_000
GROUPS = pathlib.Path("/sys/fs/cgroup")
WHY = "the process was killed by signal 9 (SIGKILL), as the system does when memory runs out"

# The engine that computes nothing; a prompt of more than 20 tokens takes all the memory there is.
HUNGRY = """
#include "engine/graph.h"
#include <stdlib.h>

static engine_class type;

static int run(engine *e, graph *g, int n, const tensor outputs[], result *results[]) {
    for (int i = 0; i < g->n_nodes; i++)
        if (graph_node(g, i)->op == OP_KV_WRITE && graph_node(g, i)->shape[0] > 20)
            for (char *more; (more = malloc(1 << 20));) memset(more, 1, 1 << 20);
    return fake_engine.run(e, g, n, outputs, results);
}

const engine_module *mlxbench_engine_module(void) {
    static const engine_module module = {ENGINE_ABI, "a test", &type};
    type = fake_engine;
    type.run = run;
    return &module;
}
"""


def make_group(folder, limits):
    """Why there is none; None: it is there. limits: file -> bytes; those of swap may be missing."""
    try:
        folder.mkdir()
        for name, size in limits.items():
            if "sw" not in name or (folder / name).exists():
                (folder / name).write_text(str(size))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        return f"{folder}: {error.strerror}"


@pytest.fixture
def limited():
    """What a command begins with so that it runs in a control group of LIMIT bytes."""
    if sys.platform != "linux":
        pytest.skip("control groups are Linux's")
    name, why = f"mlxbench-test-{os.getpid()}", []
    for parent, limits in ((GROUPS, {"memory.max": LIMIT, "memory.swap.max": 0}),
                           (GROUPS / "memory", {"memory.limit_in_bytes": LIMIT, "memory.memsw.limit_in_bytes": LIMIT})):
        if not list(parent.glob("memory.*")) and not (parent / "cgroup.controllers").exists():
            continue
        why.append(make_group(parent / name, limits))
        if not why[-1]:
            yield ["sh", "-c", f'echo $$ > {parent / name}/cgroup.procs && exec "$@"', "sh"]
            for _ in range(100):  # the last process may still be leaving
                try:
                    return (parent / name).rmdir()
                except OSError:
                    time.sleep(0.05)
            return None
    for whose in ("--user", "--system"):
        command = ["systemd-run", whose, "--scope", "--quiet", "-p", f"MemoryMax={LIMIT}", "-p", "MemorySwapMax=0"]
        if shutil.which("systemd-run") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            yield command
            return
    pytest.skip(f"no control group with a limit can be made here ({'; '.join(why) or 'none is mounted'}; no systemd-run)")


def test_a_kill_for_memory_is_a_row(mlxbench, good_folder, engine_module, limited, tmp_path):
    """Larger sizes are left out, and smaller ones are measured, before it and after it."""
    engine_module(tmp_path / "module", HUNGRY)
    done = subprocess.run([*limited, mlxbench, "-m", good_folder, "--engine", f"mlx@{tmp_path}/module", "--prompt-tokens", "random",
                           "-np", "9,30,40,10", "-n", "3", "-o", "jsonl"], capture_output=True, text=True, timeout=120)
    rows = [(row["n_prompt"], row["error"]) for row in runs_of(done.stdout)]
    assert rows == [(9, None), (30, WHY), (40, "left out: configuration 2, which is not larger, ran out of memory"), (10, None)]
    assert done.returncode == 1 and "2 of 4 configurations failed" in done.stderr, done.stderr
