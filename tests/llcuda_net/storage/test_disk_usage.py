"""How much of its disk a data directory takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.storage.disk_usage import disk_usage, free_space


def test_each_part(tmp_path: Path) -> None:
    for name, size in (
        ("journal/1.seg", 5000),
        ("journal/2.seg", 6000),
        ("transient/x", 100),
        ("results.db", 9000),
        ("results.db-wal", 9000),
        ("derived.db", 7000),
        ("objects.db", 8000),
        ("lock", 3),
        ("models/large.gguf", 99999),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * size)
    assert disk_usage(tmp_path) == {
        "journal": 11000,
        "transient": 100,
        "results": 18000,
        "derived": 7000,
        "objects": 8000,
    }


def test_what_is_only_reserved_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with (tmp_path / "journal" / "1").open("wb") as file:
        file.truncate(1 << 30)
    assert disk_usage(tmp_path)["journal"] < 1 << 20


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    assert set(disk_usage(tmp_path / "none").values()) == {0}
    with pytest.raises(OSError, match="none"):
        free_space(tmp_path / "none")
    assert free_space(tmp_path) > 0
