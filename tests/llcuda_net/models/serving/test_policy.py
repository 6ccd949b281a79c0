"""Who is loaded and who leaves: one decision at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.policy import RULES, count_use, plan
from llcuda_net.models.serving.state import ModelState, Plan
from llcuda_net.upstream.residence import Presence

NOW = 1000.0
#: A budget for two of the models below.
TWO = Budget(gpu=20)


def model(name: str, presence: Presence = Presence.UNLOADED, **what: Any) -> ModelState:
    """A model of 10 bytes; one that is loaded was so for long, and was used then."""
    used = -math.inf if presence is Presence.UNLOADED else 100.0
    base = ModelState(name, presence, need=Need(gpu=10), load_seconds=4.0, last_used=used)
    return replace(base, **what)


def loaded(name: str, **what: Any) -> ModelState:
    return model(name, Presence.LOADED, **what)


def waited_for(name: str, at: float = NOW, **what: Any) -> ModelState:
    """A model for which a request waits since a time."""
    return model(name, **{"waiting": 1, "waits_since": at, "rank": at, **what})


def decide(*models: ModelState, budget: Budget = TWO, now: float = NOW) -> Plan:
    return plan(models, budget, now)


def test_what_nobody_waits_for_is_not_loaded() -> None:
    assert decide(model("a"), loaded("b")) == Plan()


def test_what_somebody_waits_for_is_loaded_if_it_fits() -> None:
    found = decide(waited_for("a"), loaded("b"))
    assert (found.load, found.unload) == (("a",), ())
    assert found.waits["a"].reason == "model a is being loaded"
    assert found.waits["a"].seconds == 4.0


def test_one_is_loaded_at_a_time_in_the_order_of_the_queue() -> None:
    late, early = waited_for("a", 999.0, rank=7.0), waited_for("b", rank=3.0)
    found = decide(late, early)
    assert found.load == ("b",)
    assert found.waits["a"].reason == "model a is loaded after b"
    assert found.waits["a"].seconds == 8.0
    found = decide(late, model("b", Presence.LOADING, since=NOW - 1, waiting=1))
    assert found.load == ()
    assert found.waits["a"].seconds == 7.0
    assert found.waits["b"].seconds == 3.0


def test_a_claim_that_is_overdue_comes_first_and_the_oldest_of_those() -> None:
    rank = RULES.overdue + NOW
    old = waited_for("a", NOW - RULES.overdue, rank=rank)
    older = waited_for("b", NOW - RULES.overdue - 1, rank=rank)
    assert decide(waited_for("c", rank=0.0), old, older).load == ("b",)
    almost = waited_for("a", NOW - RULES.overdue + 1, rank=rank)
    found = decide(waited_for("c", rank=0.0), almost)
    assert (found.load, found.again_at) == (("c",), NOW + 1)


def test_what_has_just_left_has_no_old_claim() -> None:
    backlog = waited_for("a", 10.0, since=NOW - 1)
    assert decide(backlog, waited_for("b", NOW - 50)).load == ("b",)


def test_an_idle_model_makes_room_the_one_of_least_worth() -> None:
    often = loaded("a", uses=50.0, last_used=900.0)
    seldom = loaded("b", uses=2.0, last_used=950.0)
    found = decide(waited_for("c"), often, seldom)
    assert (found.load, found.unload) == ((), ("b",))
    cheap = replace(often, load_seconds=0.01)
    assert decide(waited_for("c"), cheap, seldom).unload == ("a",)
    large = replace(often, need=Need(host=1000, gpu=10))
    assert decide(waited_for("c"), large, seldom).unload == ("a",)


def test_among_equals_the_least_recently_used_makes_room() -> None:
    found = decide(waited_for("c"), loaded("a", last_used=200.0), loaded("b", last_used=100.0))
    assert found.unload == ("b",)


def test_uses_decay() -> None:
    assert count_use(4.0, NOW - RULES.half_life, NOW) == pytest.approx(3.0)
    assert count_use(0.0, -math.inf, NOW) == 1.0
    recent, old = (
        loaded("a", uses=3.0, last_used=990.0),
        loaded("b", uses=5.0, last_used=1.0),
    )
    assert decide(waited_for("c"), recent, old).unload == ("b",)
    assert decide(waited_for("c"), recent, replace(old, last_used=900.0)).unload == ("a",)


def test_it_is_loaded_once_the_memory_is_free() -> None:
    ending = model("b", Presence.UNLOADING)
    found = decide(waited_for("c"), loaded("a"), ending)
    assert found == Plan(waits=found.waits)
    assert found.waits["c"].reason.endswith("when the memory of another model is free")


def test_a_model_in_use_has_its_turn_then_leaves_and_is_never_unloaded() -> None:
    quantum = RULES.quantum_loads * 8.0
    busy = loaded("a", since=NOW - quantum + 1, running=2)
    claim = waited_for("c")
    pinned = loaded("b", pinned=True)
    found = decide(claim, busy, pinned)
    assert (found.leave, found.unload, found.again_at) == ((), (), NOW + 1)
    assert found.waits["c"].reason == "model c is loaded when a has had its turn"
    assert found.waits["c"].seconds == 5.0
    found = decide(claim, busy, pinned, now=NOW + 1)
    assert (found.leave, found.unload) == (("a",), ())
    assert found.waits["c"].reason == "model c is loaded when a has finished 2 requests"
    assert found.waits["c"].seconds is None
    leaving = replace(
        busy, presence=Presence.LEAVING, since=NOW, running=1, finishes_in=8.0, waiting=3
    )
    found = decide(claim, leaving, pinned)
    assert found == Plan(waits=found.waits)
    assert found.waits["c"].reason == "model c is loaded when a has finished 1 request"
    assert found.waits["c"].seconds == 12.0
    assert found.waits["a"].reason.startswith("model a makes room for another model")
    assert decide(claim, replace(leaving, running=0), pinned).unload == ("a",)


def test_the_quantum_is_some_seconds_at_least() -> None:
    quick: dict[str, Any] = {"load_seconds": 0.1, "need": Need(gpu=20)}
    busy = loaded("a", since=NOW - RULES.least_quantum + 1, running=1, **quick)
    assert decide(waited_for("c", **quick), busy).again_at == NOW + 1
    assert decide(waited_for("c", **quick), busy, now=NOW + 1).leave == ("a",)


def test_who_became_idle_a_moment_ago_keeps_its_place_within_its_turn() -> None:
    idle = loaded("a", since=NOW - 5, last_used=NOW - RULES.grace + 1, need=Need(gpu=20))
    found = decide(waited_for("c"), idle)
    assert (found.unload, found.again_at) == ((), NOW + 1)
    assert decide(waited_for("c"), idle, now=NOW + 1).unload == ("a",)
    assert decide(waited_for("c"), replace(idle, since=100.0)).unload == ("a",)


def test_idle_ones_go_before_those_in_use() -> None:
    busy = loaded("a", running=1, uses=0.1)
    assert decide(waited_for("c"), busy, loaded("b", uses=9.0)).unload == ("b",)


def test_one_that_leaves_may_stay_when_nobody_needs_its_place() -> None:
    leaving = model("a", Presence.LEAVING, running=1)
    assert decide(leaving).stay == ("a",)
    assert decide(leaving, loaded("b", pinned=True), waited_for("c")).stay == ()


def test_the_place_that_a_claim_takes_is_not_there_for_the_next_one() -> None:
    leaving = model("a", Presence.LEAVING, running=1)
    found = decide(leaving, waited_for("b", 1.0), waited_for("c", 2.0))
    assert (found.load, found.stay) == (("b",), ())


def test_no_second_one_leaves_while_one_does() -> None:
    leaving = model("a", Presence.LEAVING, running=1, uses=9.0)
    found = decide(leaving, loaded("b", running=1, uses=1.0), waited_for("c"))
    assert (found.leave, found.stay, found.unload) == ((), (), ())
    # But who is idle goes at once, and who leaves may stay.
    found = decide(leaving, loaded("b", uses=99.0), waited_for("c"))
    assert (found.unload, found.stay) == (("b",), ("a",))


def test_pinned_models_are_loaded_without_demand_and_never_leave() -> None:
    assert decide(waited_for("b", 0.0), model("a", pinned=True)).load == ("a",)
    held = [loaded("a", pinned=True), loaded("b", running=1)]
    found = decide(waited_for("c"), *held)
    assert (found.unload, found.leave) == ((), ("b",))
    found = decide(waited_for("c"), *(replace(one, pinned=True) for one in held))
    assert found == Plan(waits=found.waits)
    assert "beside the pinned a, b there is 0 B" in found.waits["c"].reason


def test_a_large_one_takes_the_place_of_two_and_small_ones_do_not_pass_it() -> None:
    large = waited_for("c", need=Need(gpu=20), rank=1.0)
    small = waited_for("d", rank=2.0)
    idle, busy = loaded("a"), loaded("b", running=1)
    found = decide(large, small, idle, busy)
    assert (found.load, found.unload, found.leave) == ((), ("a",), ("b",))
    # The place of the first is kept until the second has finished.
    found = decide(large, small, model("b", Presence.LEAVING, running=1), model("a"))
    assert found == Plan(again_at=found.again_at, waits=found.waits)
    # The same while the other has its turn yet.
    found = decide(large, small, loaded("b", running=1, since=NOW), model("a"))
    assert found.load == ()


def test_a_small_one_is_loaded_beside_what_a_large_one_waits_for() -> None:
    large = waited_for("c", need=Need(gpu=20), rank=1.0)
    busy = loaded("a", need=Need(gpu=20), running=1, since=NOW)
    found = decide(large, waited_for("d", rank=2.0), busy, budget=Budget(gpu=30))
    assert found.load == ("d",)
    assert found.waits["c"].reason == "model c is loaded when a has had its turn"


def test_no_more_leave_than_must() -> None:
    small = [loaded(name, need=Need(gpu=3), uses=1.0) for name in "ab"]
    large = loaded("c", need=Need(gpu=14), uses=50.0)
    assert decide(waited_for("d", need=Need(gpu=14)), *small, large).unload == ("c",)


def test_only_those_leave_that_have_what_is_lacking() -> None:
    both = Budget(host=20, gpu=10)
    on_host = loaded("a", need=Need(host=10), uses=0.0)
    on_gpu = loaded("b", need=Need(gpu=10), uses=9.0)
    assert decide(waited_for("c"), on_host, on_gpu, budget=both).unload == ("b",)
    host = waited_for("c", need=Need(host=15))
    assert decide(host, on_host, on_gpu, budget=both).unload == ("a",)


def test_idle_models_are_unloaded_after_their_time() -> None:
    idle = loaded("a", last_used=NOW - 50, idle_seconds=60.0)
    assert decide(idle) == Plan(again_at=NOW + 10)
    assert decide(idle, now=NOW + 10).unload == ("a",)
    assert decide(replace(idle, since=NOW - 1), now=NOW + 10).again_at == NOW + 59
    for kept in (
        replace(idle, running=1),
        replace(idle, waiting=1),
        replace(idle, pinned=True),
        replace(idle, idle_seconds=None),
    ):
        assert decide(kept, now=NOW + 99).unload == ()


def test_one_whose_load_failed_is_tried_again_later_and_others_go_on() -> None:
    failed = waited_for("a", failed_until=NOW + 7)
    found = decide(failed, waited_for("b", rank=9999.0))
    assert (found.load, found.again_at) == (("b",), NOW + 7)
    assert (found.waits["a"].reason, found.waits["a"].seconds) == (
        "model a could not be loaded; it is tried again",
        7.0,
    )
    assert decide(failed, now=NOW + 7).load == ("a",)


def test_what_turns_out_larger_than_the_budget_makes_idle_ones_leave_then_those_in_use() -> None:
    grown = loaded("a", need=Need(gpu=12), running=1, since=NOW)
    assert decide(grown, loaded("b", uses=99.0)).unload == ("b",)
    busy = replace(grown, name="b", need=Need(gpu=9), uses=0.5)
    found = decide(grown, busy, waited_for("c"))
    assert (found.leave, found.load) == (("a",), ())
    found = decide(grown, loaded("b", pinned=True), budget=Budget(gpu=5))
    assert (found.leave, found.unload) == (("a",), ())


def test_what_loads_frees_nothing_when_memory_is_exceeded() -> None:
    small = loaded("a", need=Need(gpu=4), uses=99.0)
    large = model("b", Presence.LOADING, need=Need(gpu=17))
    assert decide(small, large, budget=Budget(gpu=15)).unload == ("a",)


def test_nobody_leaves_for_a_claim_that_would_not_fit_yet() -> None:
    leaving, busy = model("a", Presence.LEAVING, running=1), loaded("b", running=1)
    first, second = waited_for("c", 1.0), waited_for("d", 2.0, need=Need(gpu=20))
    found = decide(leaving, busy, first, second)
    assert (found.leave, found.stay, found.load) == ((), (), ())


def test_memory_that_becomes_free_is_promised_once() -> None:
    ending, idle = model("a", Presence.UNLOADING), loaded("b", need=Need(gpu=5))
    claims = [
        waited_for(name, rank, need=Need(gpu=size))
        for name, rank, size in (("c", 1.0, 25), ("d", 2.0, 10), ("e", 3.0, 5))
    ]
    found = decide(ending, idle, *claims, budget=Budget(gpu=35))
    assert (found.load, found.unload) == ((), ("b",))


def test_asked_by_hand() -> None:
    assert decide(model("a", wanted=True)).load == ("a",)
    assert decide(loaded("a", wanted=False)).unload == ("a",)
    assert decide(loaded("a", wanted=False, running=1)).leave == ("a",)
    assert decide(model("a", Presence.LEAVING, wanted=False, running=1)).stay == ()
    assert decide(model("a", pinned=True, wanted=False)).load == ()
    assert decide(loaded("a", pinned=True, wanted=False)).unload == ("a",)
    assert decide(waited_for("a", wanted=False)).load == ("a",)


def test_without_a_budget_everything_is_loaded() -> None:
    found = decide(waited_for("c"), loaded("a"), loaded("b"), budget=Budget())
    assert (found.load, found.unload) == (("c",), ())
