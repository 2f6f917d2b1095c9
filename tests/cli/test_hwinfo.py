"""mlxbench hwinfo: its two forms agree with each other and with what Python says of this machine."""

import json
import os
import platform
import re
import subprocess
import sys

import pytest

FACTS = {
    "line": str, "id": str, "chip": str, "physical_cores": int, "logical_cores": int, "performance_cores": int,
    "efficiency_cores": int, "usable_cores": int, "numa_nodes": int, "memory_bytes": int,
    "available_memory_bytes": int, "simd": list, "caches": list, "gpus": list, "os": str, "kernel": str,
    "architecture": str, "engines": list,
}
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's own files and calls")


def memory_bytes():
    """A container may show less in /proc/meminfo than sysconf knows of."""
    if sys.platform == "linux":
        with open("/proc/meminfo") as file:
            return int(re.search(r"MemTotal: +(\d+) kB", file.read())[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def facts(run):
    return json.loads(run("hwinfo", "--json", check=True).stdout)


@pytest.fixture(scope="module")
def lines(run):
    return run("hwinfo", check=True).stdout.splitlines()


def test_json_has_every_fact(facts):
    assert {key: type(value) for key, value in facts.items()} == FACTS
    for cache in facts["caches"]:
        assert {key: type(value) for key, value in cache.items()} == {
            "level": int, "type": str, "bytes": int, "instances": int}
        assert cache["bytes"] > 0 and cache["instances"] > 0
    for gpu in facts["gpus"]:
        assert {key: type(value) for key, value in gpu.items()} == {
            "name": str, "cores": int, "memory_bytes": int, "driver": str}


def test_facts_are_this_machine(facts):
    assert facts["logical_cores"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert 1 <= facts["usable_cores"] <= facts["physical_cores"] <= facts["logical_cores"]
    assert 0 < facts["available_memory_bytes"] <= facts["memory_bytes"]
    assert facts["memory_bytes"] == memory_bytes()
    assert facts["architecture"] == platform.machine()
    assert facts["kernel"] == f"{platform.system()} {platform.release()}"


def test_first_line_and_id(facts, lines):
    assert lines[0] == facts["line"]
    chip, memory, compute = lines[0].split(" | ")
    assert memory == f"{facts['memory_bytes'] / 2**30:.1f}GB"
    assert chip and not re.search(r"\((R|TM)\)|@|\bCPU\b|\bProcessor\b", chip)
    if not facts["gpus"]:
        assert compute == f"{facts['physical_cores']} cores"
    assert re.fullmatch(r"[a-z0-9]+_\d+gb_[a-z0-9]+", facts["id"])


def test_text_lists_the_same_facts(facts, lines):
    rows = [re.fullmatch(r"(\S.*?): +(\S.*)", line) for line in lines[1:]]
    assert all(rows)
    assert len({row.start(2) for row in rows}) == 1, "values are aligned"
    text = {row[1]: row[2] for row in rows}
    assert text["id"] == facts["id"]
    assert text["physical cores"] == str(facts["physical_cores"])
    assert text["usable cores"] == str(facts["usable_cores"])
    assert text["memory"].endswith(f"({facts['memory_bytes']} bytes)")
    assert text["kernel"] == facts["kernel"]
    assert text.get("chip", "") == facts["chip"]
    assert text.get("SIMD", "").split() == facts["simd"]
    assert sum(name.endswith(" cache") for name in (row[1] for row in rows)) == len(facts["caches"])
    assert sum(name.startswith("GPU ") for name in text) == len(facts["gpus"])
    for engine in facts["engines"]:
        shown = text[f"engine {engine['name']}"]
        assert shown == (f"not usable: {engine['missing']}" if "missing" in engine
                         else f"{engine['version']}, {engine['device']}")
    assert [engine["name"] for engine in facts["engines"]][:2] == ["cpu", "mlx"]


@LINUX_ONLY
def test_simd_are_flags_of_the_cpu(facts):
    with open("/proc/cpuinfo") as file:
        flags = set(file.read().split())
    assert set(facts["simd"]) <= flags
    assert ("avx2" in facts["simd"]) == ("avx2" in flags)
    assert ("asimd" in facts["simd"]) == ("asimd" in flags)


@LINUX_ONLY
def test_affinity_limits_usable_cores(mlxbench):
    cpu = min(os.sched_getaffinity(0))
    done = subprocess.run([str(mlxbench), "hwinfo", "--json"], capture_output=True, text=True, check=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
    assert json.loads(done.stdout)["usable_cores"] == 1


@pytest.mark.parametrize("option", ["--jsn", "--json=yes", "extra"])
def test_wrong_options(run, option):
    done = run("hwinfo", option)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_help(run):
    assert "--json" in run("hwinfo", "--help", check=True).stdout


def test_full_disk(mlxbench):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(mlxbench), "hwinfo"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
