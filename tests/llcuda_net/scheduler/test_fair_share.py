"""Virtual token counters: who has had least is next, and to be away is no credit and no debt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.config.users import User
from llcuda_net.scheduler.fair_share import CREDIT, Lane, Share
from llcuda_net.scheduler.flows import Row
from llcuda_net.scheduler.quota import Account, Mean


def run(lane: Lane, share: Share, tokens: float) -> None:
    lane.begin(share, tokens, lambda: tokens, tokens)
    lane.settle(share, tokens, tokens)


def test_tokens_count_by_weight() -> None:
    lane, light, heavy = Lane(), Share(1.0), Share(4.0)
    run(lane, light, 100)
    run(lane, heavy, 100)
    assert (light.counter(), heavy.counter()) == (100.0, 25.0)


def test_what_runs_counts_as_it_stands_but_at_least_as_expected() -> None:
    lane, share = Lane(), Share(2.0)
    used = 10.0
    lane.begin(share, "work", lambda: used, 100.0)
    assert (share.served(), share.counter()) == (5.0, 50.0)
    used = 300.0
    assert (share.served(), share.counter()) == (150.0, 150.0)
    lane.settle(share, "work", 20.0)
    assert (share.served(), share.counter(), share.running) == (10.0, 10.0, 0)


def test_whoever_begins_to_compete_is_lifted_to_the_least_of_those_who_do() -> None:
    lane, one, two, new, capped = Lane(), Share(1.0), Share(1.0), Share(1.0), Share(1.0)
    lane.compete([(one, True), (two, True), (capped, False)])
    run(lane, one, 500)
    run(lane, two, 300)
    lane.compete([(one, True), (two, True), (new, True), (capped, False)])
    assert [share.counter() for share in (one, two, new, capped)] == [500, 300, 300, 0]
    assert lane.now == 300
    run(lane, two, 400)
    run(lane, new, 150)
    lane.compete([(one, True), (two, True), (new, False), (capped, True)])
    assert capped.counter() == 500
    lane.compete([(one, True), (two, True), (new, True), (capped, True)])
    assert new.counter() == 500  # 450, and 50 while it could not compete
    run(lane, one, 1000)
    lane.compete([(one, False), (two, True), (new, True), (capped, True)])
    lane.compete([(one, True), (two, True), (new, True), (capped, True)])
    assert one.counter() == 1500  # what it had it has had


def test_without_others_who_compete_those_who_run_tell_the_time() -> None:
    lane, one, new = Lane(), Share(1.0), Share(1.0)
    lane.begin(one, "work", lambda: 700.0, 9000.0)
    lane.compete([(new, True)])
    assert new.counter() == 700  # not what is only expected of one
    lane.settle(one, "work", 800.0)
    lane.compete([(new, False)])
    late = Share(1.0)
    lane.compete([(late, True)])
    assert late.counter() == 700  # nobody is there: as it was


def test_credit_for_having_had_no_place_is_bounded() -> None:
    lane, placed, waiting = Lane(), Share(1.0), Share(2.0)
    lane.compete([(placed, True), (waiting, True)])
    run(lane, placed, 1000)
    lane.begin(placed, "a", lambda: 0.0, 0.0, passed=[waiting])
    assert waiting.counter() == 0
    lane.settle(placed, "a", CREDIT)
    lane.begin(placed, "b", lambda: 0.0, 0.0, passed=[waiting])
    assert waiting.counter() == 1000


@given(
    before=st.floats(0.0, 1e6),
    lift=st.floats(0.0, 1e6),
    running=st.lists(st.floats(0.0, 1e3), max_size=3),
)
def test_those_who_are_lifted_are_even(before: float, lift: float, running: list[float]) -> None:
    row = Row()
    seat = row.seat(Account(User(weight=3.0), Mean()))
    for number, used in enumerate(running):
        seat.share.begin(number, lambda used=used: used, 0.0)  # type: ignore[misc]
    seat.share.lift(before)
    row.lane.now = seat.share.served() + lift
    seat.share.lift(row.lane.now)
    assert seat.lead() == 0.0


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=6),
    sizes=st.lists(st.integers(1, 1000), min_size=50, max_size=300),
)
def test_counters_of_those_who_always_compete_stay_together(
    weights: list[float], sizes: list[int]
) -> None:
    lane = Lane()
    shares = [Share(weight) for weight in weights]
    for size in sizes:
        lane.compete([(share, True) for share in shares])
        run(lane, min(shares, key=Share.counter), size)
        counters = [share.counter() for share in shares]
        assert max(counters) - min(counters) <= max(sizes) / min(weights) + 1e-6
    assert sum(s.counter() * s.weight for s in shares) == pytest.approx(sum(sizes))
