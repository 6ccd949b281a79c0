"""Ids and epochs grow with time, and no two are alike."""

from __future__ import annotations

import time
import uuid

import pytest

from llcuda_net.util.time_ids import epoch_time, next_epoch, uuid7


def test_ids_are_uuids_of_version_7_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000_000_000_000
    made = []
    for tick in range(200):
        monkeypatch.setattr(time, "time_ns", lambda tick=tick: now + tick * 1_000_000)
        made.append(uuid7())
    assert made == sorted(made)
    assert len(set(made)) == 200
    for tick, text in enumerate(made):
        value = uuid.UUID(text)
        assert str(value) == text
        assert (value.version, value.variant) == (7, uuid.RFC_4122)
        assert value.int >> 80 == 1_700_000_000_000 + tick
    same = {uuid7() for _ in range(1000)}  # in one millisecond
    assert len(same) == 1000


def test_epochs_grow_also_where_the_clock_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000_123_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    first = next_epoch(0)
    assert epoch_time(first) == now
    monkeypatch.setattr(time, "time_ns", lambda: now - 60_000_000_000)  # it was set back
    assert next_epoch(first) == first + 1
