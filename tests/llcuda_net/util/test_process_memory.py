"""What a process may take is found in the tree of control groups, of both versions."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llcuda_net.util.process_memory import cgroup_limit, resident


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("", {}, None),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "1000000\n"}, 1_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "7000"}, 7000),
        ("0::/a/b\n", {"a/b/memory.max": "5000", "a/memory.max": "7000"}, 5000),
        # In a container the path is the host's, and the limit is at the root.
        ("0::/../host\n", {"memory.max": "3000"}, 3000),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9000"}, 9000),
        ("4:cpu,memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("nonsense", {"memory.max": "nonsense"}, None),
    ],
)
def test_the_limit(groups: str, files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "groups").write_text(groups)
    assert cgroup_limit(root, tmp_path / "groups") == limit


_GIVES_BACK = """
from llcuda_net.util.process_memory import Allocator, resident
allocator = Allocator()
allocator.configure()
seen = [resident()]
blocks = [b"x" * (1 << 20) for _ in range(64)]
seen.append(resident())
del blocks
allocator.trim()
print(*seen, resident())
"""


def test_what_is_freed_is_given_back() -> None:
    assert resident(Path("/nothing")) == 0
    if not resident():
        pytest.skip("this system does not tell")
    # In a process of its own: what other tests freed could hold the blocks without growing.
    command = [sys.executable, "-c", _GIVES_BACK]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    before, full, after = map(int, ended.stdout.split())
    assert full > before + (60 << 20)
    assert after < before + (8 << 20)


def test_pages_of_files_do_not_count(tmp_path: Path) -> None:
    """The code of libraries is not what clients have made us hold, and can be dropped."""
    statm = tmp_path / "statm"
    statm.write_text("100000 5000 3000 1 0 4000 0\n")
    assert resident(statm) == 2000 * os.sysconf("SC_PAGE_SIZE")
    file = tmp_path / "library"
    file.write_bytes(bytes(32 << 20))
    before = resident()
    if not before:
        pytest.skip("this system does not say what a process takes")
    with file.open("rb") as data, mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] for at in range(0, len(mapped), 4096)) == 0  # all of it is in memory
        assert resident() < before + (8 << 20)
