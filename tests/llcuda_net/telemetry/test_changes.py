"""What is noted of upstreams that change between two looks."""

from __future__ import annotations

from llcuda_net.telemetry.changes import Changes
from tests.support.upstream.backends import FakeBackend


def noted(changes: Changes) -> list[tuple[str, str, bool]]:
    return [(one["upstream"], one["text"], one["bad"]) for one in changes.report()]


def test_the_first_look_notes_nothing() -> None:
    changes = Changes()
    changes.look([FakeBackend(state="down"), FakeBackend("b", failovers=3)], 1.0)
    assert changes.report() == []


def test_each_kind_of_change() -> None:
    changes = Changes()
    one, other = FakeBackend("a"), FakeBackend("b")
    changes.look([one, other], 1.0)
    one.state, one.reason = "down", "connection refused"
    other.failovers += 1
    other.restarts += 2
    changes.look([one, other], 2.0)
    one.state, one.reason, one.model = "up", "", "larger"
    changes.look([one, FakeBackend("c")], 3.1239)
    assert noted(changes) == [
        ("a", "is down: connection refused", True),
        ("b", "2 restarts", True),
        ("b", "1 failover", True),
        ("a", "is up", False),
        ("a", "has another model: larger", False),
        ("c", "was added", False),
        ("b", "was removed", False),
    ]
    assert [one["at"] for one in changes.report()] == [2.0] * 3 + [3.124] * 4


def test_a_model_that_is_loaded_is_no_other_model() -> None:
    changes = Changes()
    changes.look([FakeBackend(model="")], 1.0)
    changes.look([FakeBackend(model="m")], 2.0)
    changes.look([FakeBackend(model="")], 3.0)
    assert changes.report() == []


def test_few_are_kept_and_long_reasons_are_cut() -> None:
    changes = Changes()
    one = FakeBackend()
    changes.look([one], 0.0)
    for number in range(100):
        one.state, one.reason = ("up", "down")[number % 2], "x" * 1000
        one.failovers += 1
        changes.look([one], float(number))
    assert len(changes.report()) == 50
    assert max(len(one["text"]) for one in changes.report()) < 400
