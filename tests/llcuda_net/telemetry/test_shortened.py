"""Reports of servers with more of everything than a report may have."""

from __future__ import annotations

from typing import Any

from llcuda_net.telemetry.shortened import shortened


def _report() -> dict[str, Any]:
    return {
        "queue": list(range(8)),
        "users": list(range(8)),
        "upstreams": [{"name": "a", "slots_detail": list(range(8))} for _ in range(2)],
        "models": list(range(8)),
    }


def _entries(report: dict[str, Any]) -> int:
    lists = sum(len(report[name]) for name in ("queue", "users", "models"))
    return lists + sum(len(one["slots_detail"]) for one in report["upstreams"])


def test_what_fits_stays_as_it_is() -> None:
    report = _report()
    assert shortened(report, lambda _: True) is report


def test_lists_lose_entries_in_their_order() -> None:
    report = _report()
    found = shortened(report, lambda one: _entries(one) <= 20)
    assert report == _report()  # not changed
    assert found["cut"] == {"queue": 8, "users": 8, "slots_detail": 8}
    assert [len(one["slots_detail"]) for one in found["upstreams"]] == [4, 4]
    assert found["models"] == report["models"]


def test_what_was_cut_before_is_counted_on() -> None:
    found = shortened({"queue": [1, 2, 3], "cut": {"queue": 5}}, lambda one: len(one["queue"]) < 2)
    assert (found["queue"], found["cut"]) == ([1], {"queue": 7})


def test_what_never_fits_ends_empty() -> None:
    found = shortened(_report(), lambda _: False)
    assert found["cut"] == {"queue": 8, "users": 8, "slots_detail": 16, "models": 8, "upstreams": 2}
