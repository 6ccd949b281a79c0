"""Where a request is to wait."""

from __future__ import annotations

from collections import Counter

from llcuda_net.cluster.owners.routing import Offer, choose, part

NONE = Offer(1, 0, 0)


def test_a_request_stays_where_a_slot_is_free() -> None:
    assert choose(Offer(1, 4, 1), [Offer(2, 8, 8)], {}) is None


def test_it_goes_where_there_is_an_upstream_of_its_model_at_all() -> None:
    busy = Offer(2, 1, 0, queued=9, wait=90.0)
    assert choose(NONE, [busy], {}) == 2
    assert choose(NONE, [busy, Offer(3, 1, 0, queued=1, wait=2.0)], {}) == 3
    assert choose(NONE, [NONE], {}) is None
    assert choose(NONE, [], {}) is None


def test_it_goes_where_it_waits_clearly_less() -> None:
    here = Offer(1, 2, 0, queued=3, wait=8.0)
    assert choose(here, [Offer(2, 2, 1)], {}) == 2
    assert choose(here, [Offer(2, 2, 0, queued=0, wait=2.0)], {}) == 2
    assert choose(here, [Offer(2, 2, 0, queued=3, wait=7.9)], {}) is None
    assert choose(here, [Offer(2, 0, 0)], {}) is None
    unknown = Offer(1, 2, 0, queued=3)
    assert choose(unknown, [Offer(2, 2, 0, queued=0)], {}) == 2
    assert choose(unknown, [Offer(2, 2, 0, queued=3)], {}) is None


def test_those_that_were_sent_since_count() -> None:
    free = Offer(2, 2, 2)
    assert choose(NONE, [free, Offer(3, 2, 1)], {}) == 2
    assert choose(NONE, [free, Offer(3, 2, 1)], {2: 2}) == 3
    waits = Offer(2, 2, 0, queued=1, wait=4.0)
    assert waits.seconds(0) == 4.0
    assert waits.seconds(2) == 8.0
    assert choose(Offer(1, 2, 0, queued=1, wait=5.0), [waits], {2: 1}) is None


def test_many_at_once_are_spread_over_those_with_room() -> None:
    offers = [Offer(2, 8, 8), Offer(3, 4, 4), Offer(4, 4, 2)]
    sent: Counter[int] = Counter()
    for _ in range(14):
        server = choose(NONE, offers, sent)
        assert server is not None
        sent[server] += 1
    assert sent == {2: 8, 3: 4, 4: 2}


def test_free_slots_are_divided_among_those_that_have_something_for_them() -> None:
    for free in range(-1, 9):
        for servers in ([3], [3, 5], [3, 5, 8]):
            parts = [part(free, me, [*{*servers} - {me}]) for me in servers]
            assert sum(parts) == max(free, 0)
            assert max(parts) - min(parts) <= 1
