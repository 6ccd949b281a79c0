"""What a server may do by its own clock, and what it sends again."""

from __future__ import annotations

import time

from llcuda_net.cluster.standing import (
    LEASE,
    RENEW,
    STOP,
    Batch,
    Outbox,
    OwnLease,
    Standing,
    suspended_clock,
)


def test_a_lease_is_good_from_when_its_renewal_was_sent() -> None:
    lease = OwnLease.taken(100.0)
    assert (lease.renew_at, lease.good_until) == (100.0 + RENEW, 100.0 + STOP)
    asked = lease.asked(101.0)
    assert asked.renew_at == 102.0
    assert asked.good_until == lease.good_until  # nothing is renewed before the answer
    renewed = asked.answered(101.0, True)
    assert renewed.good_until == 101.0 + STOP
    # An answer to an earlier request takes nothing away.
    assert renewed.answered(100.5, True) == renewed
    assert renewed.may_begin(104.9)
    assert renewed.standing(105.0) is Standing.STOPPED
    assert not renewed.may_begin(105.0)
    # It was away for long, and nobody took over.
    assert renewed.answered(200.0, True).standing(203.0) is Standing.MEMBER


def test_who_is_fenced_stays_so() -> None:
    for fenced in (OwnLease.taken(0).answered(1, False), OwnLease.taken(0).refused()):
        assert fenced.standing(0) is Standing.FENCED
        assert fenced.answered(2, True).standing(2.5) is Standing.FENCED
        assert not fenced.may_begin(2.5)


def test_who_was_not_heard_for_a_while_takes_over_from_nobody() -> None:
    lease = OwnLease.taken(100.0)
    assert not lease.may_take_over(100.0)
    for sent in (103.0, 106.0):
        lease = lease.answered(sent, True)
    assert not lease.may_take_over(100.0 + LEASE - 0.1)
    assert lease.may_take_over(100.0 + LEASE)
    assert not lease.may_take_over(106.0 + STOP)  # it has stopped
    late = lease.answered(106.0 + STOP + 0.1, True)
    assert late.may_begin(111.0)
    assert not late.may_take_over(111.0)
    assert late.answered(104.0, True) == late  # an early answer that came late is no gap
    for sent in (113.0, 115.0):
        late = late.answered(sent, True)
    assert late.may_take_over(110.2 + LEASE)
    assert not late.refused().may_take_over(116.0)


def test_a_server_stops_before_others_may_fence_it() -> None:
    assert RENEW < STOP < LEASE


def test_the_clock_goes_forward() -> None:
    before = suspended_clock()
    assert suspended_clock() >= before
    assert abs(suspended_clock() - time.monotonic()) >= 0


def test_a_batch_is_sent_again_as_it_was() -> None:
    empty: Outbox[bytes] = Outbox()
    box, batch = empty.send()
    assert batch is None
    box = box.add(b"a", b"b")
    box, batch = box.send()
    assert batch == Batch(1, (b"a", b"b"))
    box = box.add(b"c")
    assert box.send() == (box, batch)  # whatever came meanwhile
    box, shown = box.committed(1)
    assert shown == (b"a", b"b")
    assert box.committed(1) == (box, ())  # the answer to the other attempt
    box, batch = box.send()
    assert batch == Batch(2, (b"c",))
    assert box.committed(1) == (box, ())
    assert box.committed(2)[1] == (b"c",)
