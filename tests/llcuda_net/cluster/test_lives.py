"""Which lives a data directory has had."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.cluster.lives import Lives
from llcuda_net.errors import StorageError


def test_lives_are_remembered_until_they_are_settled(tmp_path: Path) -> None:
    assert Lives(tmp_path).begin("store", 1) == []
    assert Lives(tmp_path).begin("store", 4) == [1]
    third = Lives(tmp_path)
    assert third.begin("store", 5) == [1, 4]
    third.settled(5)
    assert Lives(tmp_path).begin("store", 9) == [5]


def test_another_store_has_other_numbers(tmp_path: Path) -> None:
    Lives(tmp_path).begin("one", 7)
    assert Lives(tmp_path).begin("other", 1) == []
    assert Lives(tmp_path).begin("one", 8) == [7]


@pytest.mark.parametrize("bad", [b"", b"\xff\x00", b"[1]", b'{"store": "x"}', b'{"store": [{}]}'])
def test_a_file_that_is_none_is_no_life(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "lives").write_bytes(bad)
    assert Lives(tmp_path).begin("store", 3) == []
    assert Lives(tmp_path).begin("store", 4) == [3]


def test_a_life_that_cannot_be_noted_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be"):
        Lives(tmp_path / "gone").begin("store", 1)
