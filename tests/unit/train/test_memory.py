"""What memory there is, read from the machine and its control groups, and the words when it runs out."""

from __future__ import annotations

import sys

import pytest
import torch

from tutelage.errors import MachineError
from tutelage.train import memory

CPU = torch.device("cpu")


def test_the_limit_is_more_than_what_is_in_use_and_less_than_the_machine():
    used, limit = memory.memory_in_use(CPU), memory.memory_limit(CPU)
    assert 50e6 < used < limit < 1e14
    assert memory.peak_memory_bytes(CPU) >= 0.9 * used


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """`groups("0::/a/b", {"a": (100, 40, 10)})` makes control groups with a limit, a usage and a cache of files."""

    def make(line: str, limits: dict[str, tuple[object, int, int]], names=("memory.max", "memory.current"), inside=""):
        for path, (most, used, cached) in limits.items():
            folder = tmp_path / inside / path
            folder.mkdir(parents=True, exist_ok=True)
            (folder / names[0]).write_text(f"{most}\n")
            (folder / names[1]).write_text(f"{used}\n")
            key = "inactive_file" if names[0] == "memory.max" else "total_inactive_file"
            (folder / "memory.stat").write_text(f"anon 1\n{key} {cached}\n")
        read = memory._lines
        monkeypatch.setattr(memory, "CGROUPS", tmp_path)
        monkeypatch.setattr(memory, "_lines", lambda path: [line] if str(path) == "/proc/self/cgroup" else read(path))
        return min(memory._groups_leave())

    return make


def test_the_tightest_group_around_the_process_counts_and_a_cache_of_files_is_free(groups):
    assert groups("0::/a/b", {"": ("max", 7, 0), "a": (1000, 400, 100), "a/b": ("max", 400, 0)}) == 700


def test_a_group_of_the_second_level_counts_too(groups):
    assert groups("0::/a/b", {"a": (1000, 400, 0), "a/b": (500, 450, 0)}) == 50


def test_groups_of_the_first_version(groups):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    assert groups("4:memory,cpu:/x", {"x": (900, 300, 50)}, names, inside="memory") == 650


def test_no_group_is_no_limit(groups):
    assert groups("0::/", {}) == sys.maxsize
    assert groups("7:cpu:/x", {}) == sys.maxsize


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("can't be"), False),
    ],
)
def test_what_counts_as_running_out(error, is_memory):
    assert memory.is_out_of_memory(error) is is_memory


def test_running_out_is_explained_with_half_of_the_budget_in_force():
    budgets = [4096, 1024]
    with pytest.raises(MachineError) as caught, memory.explained(lambda: budgets[-1]):
        raise torch.OutOfMemoryError("no room")
    assert caught.value.code == "machine/out-of-memory"
    assert "train.token_budget=512" in str(caught.value)


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes"), memory.explained(lambda: 1):
        raise RuntimeError("shapes do not match")


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_free_memory_is_given_back_and_the_peak_forgotten():
    memory.give_back_memory()
    before = memory.memory_in_use(CPU)
    block = torch.ones(64 << 20)
    assert memory.memory_in_use(CPU) - before > 200e6
    del block
    memory.give_back_memory()
    assert memory.memory_in_use(CPU) - before < 60e6
    peak = memory.peak_memory_bytes(CPU)
    memory.forget_peak(CPU)
    assert memory.peak_memory_bytes(CPU) <= peak
