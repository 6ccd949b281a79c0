"""The memory of this machine, and of a process as the kernel tells it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llcuda_net.models.files import machine
from llcuda_net.models.files.machine import (
    available_memory,
    gpu_by_process,
    host_budget,
    host_memory,
    measured,
)
from llcuda_net.models.files.memory import Bytes, Estimate

MIB = 1 << 20
ROLLUP = """\
00400000-7ffd0000 ---p 00000000 00:00 0  [rollup]
Rss:             1000000 kB
Pss:              900000 kB
Pss_Anon:         {own} kB
Pss_File:         {mapped} kB
Pss_Shmem:            10 kB
SwapPss:              20 kB
"""


def process(proc: Path, own: int, mapped: int) -> None:
    (proc / "7").mkdir(exist_ok=True)
    (proc / "7" / "smaps_rollup").write_text(ROLLUP.format(own=own, mapped=mapped))


def test_memory_of_a_process_is_its_own_and_what_it_maps(tmp_path: Path) -> None:
    process(tmp_path, own=1000, mapped=5000)
    assert measured(7, proc=tmp_path) == 6030 * 1024


def test_weights_that_were_copied_count_once(tmp_path: Path) -> None:
    need = Estimate(weights=Bytes(4000 * 1024), cache=Bytes(500 * 1024), overhead=Bytes(100 * 1024))
    process(tmp_path, own=570, mapped=4100)  # mapped: nothing was copied
    assert measured(7, need, proc=tmp_path) == 4700 * 1024
    process(tmp_path, own=4570, mapped=4100)  # all of it was
    assert measured(7, need, proc=tmp_path) == 4700 * 1024
    process(tmp_path, own=9000, mapped=4100)  # and there is more
    assert measured(7, need, proc=tmp_path) == (9030 + 100) * 1024


def test_a_kernel_without_the_sum(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tx\nRssAnon:\t  10 kB\nRssFile:\t 5 kB\n")
    assert measured(7, proc=tmp_path) == 15 * 1024
    (tmp_path / "7" / "status").write_text("Name:\tzombie\n")
    assert measured(7, proc=tmp_path) is None
    assert measured(8, proc=tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_real_process_is_measured() -> None:
    before = measured(os.getpid())
    assert before is not None
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for at in range(0, len(block), mmap.PAGESIZE):
            block[at] = 1
        after = measured(os.getpid())
    assert after is not None
    assert 60 * MIB < after - before < 100 * MIB
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert measured(ended.pid) is None


def test_a_part_of_the_memory_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for memory, left in ((64 << 30, (64 << 30) // 10), (4 << 30, 1 << 30), (1 << 30, 1 << 29)):
        monkeypatch.setattr(machine, "host_memory", lambda memory=memory: memory)
        assert host_budget() == memory - left
    monkeypatch.setattr(machine, "host_memory", lambda: None)
    assert host_budget() is None


def test_the_memory_is_that_of_the_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = host_memory()
    assert whole
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(machine, "cgroup_limit", lambda: 1 << 20)
    assert host_memory() == 1 << 20
    monkeypatch.setattr(machine, "cgroup_limit", lambda: None)
    assert (host_memory() or 0) >= whole


def test_what_could_be_had_now(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    7 kB\n")
    assert available_memory(tmp_path / "meminfo") == 7 * 1024
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\n")
    assert available_memory(tmp_path / "meminfo") is None
    assert available_memory(tmp_path / "absent") is None


def test_gpu_memory_by_process(tmp_path: Path) -> None:
    smi = tmp_path / "smi"
    smi.write_text(
        "#!/bin/sh\n"
        'test "$1" = --query-compute-apps=pid,used_memory || exit 1\n'
        "printf '12, 300\\n13, [N/A]\\n12, 20\\nNo devices\\n'\n"
    )
    smi.chmod(0o755)
    assert gpu_by_process(str(smi)) == {12: 320 * MIB}
    smi.write_text("#!/bin/sh\necho '12, 300'\nexit 9\n")
    assert gpu_by_process(str(smi)) == {}
    smi.write_text("no program")
    assert gpu_by_process(str(smi)) == {}
    assert gpu_by_process(str(tmp_path / "absent")) == {}
