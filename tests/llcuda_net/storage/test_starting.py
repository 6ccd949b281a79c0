"""What a start says while it takes long, and of results that the store has lost."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from llcuda_net.storage.journal.recovery import Recovered
from llcuda_net.storage.starting import TELLING, Progress, losses


def test_only_a_long_start_is_told_of_and_not_more_often_than_every_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress, now = Progress(), 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with capture_logs() as logs:
        for part, seconds in ((0.1, 0.0), (0.2, TELLING - 1), (0.3, 1.0), (0.4, 1.0), (0.5, 5.0)):
            now += seconds
            progress.reached(part)
    assert [one["percent"] for one in logs if one["event"] == "journal_recovering"] == [30, 50]
    assert (progress.part, repr(progress)) == (0.5, "<Progress 50%>")


def test_lost_results_are_named_where_the_journal_has_them_no_more() -> None:
    assert losses(Recovered(generations=[], lost=set())) == []
    (line,) = losses(Recovered(generations=[], lost={"b", "a"}))
    assert "lost 2 results" in line
    assert line.endswith("0 of them are restored from the journal; not these: a, b")
