"""Generations that go from one live server to another, on a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from llcuda_net.cluster import leases, recovery
from llcuda_net.cluster.owners.handing import epoch_of, hand_over
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted
from tests.support.cluster.database import Shared, shared
from tests.support.storage.interleaving import standing, wait_for_lock
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import opened

RECORDS = joined([*restated(OpenGeneration(opened(1, generation="g")), 1)])


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Shared]:
    with shared(postgres.new_database()) as out:
        yield out


def accepted(db: Shared, server: int) -> None:
    accept = [Accept("g", "ann", None, b"")]
    assert db.do(lambda db: leases.append(db, server, 1, RECORDS, accept))


def owner(db: Shared) -> int | None:
    row = db.do(lambda db: db.execute("SELECT server FROM generations WHERE id = 'g'").fetchone())
    return None if row is None else int(row[0])


def hand(db: Shared, me: int, to: int) -> bool:
    return db.do(partial(hand_over, me=me, to=to, ids={"g": 1}, data=RECORDS))


def test_the_receiver_takes_it_over_as_from_a_server_that_died(db: Shared) -> None:
    giver, receiver, third = db.join(), db.join(), db.join()
    accepted(db, giver)
    assert hand(db, giver, receiver)
    ghost = owner(db)
    assert ghost not in (giver, receiver, None)
    assert db.do(lambda db: leases.expired(db, third, 0.0)) == []
    assert db.do(lambda db: leases.expired(db, receiver, 0.0)) == [ghost]
    assert ghost is not None
    assert db.do(lambda db: leases.fence(db, receiver, ghost))
    found = db.do(lambda db: recovery.read(db, ghost))
    assert [one.opened.generation for one in found.generations] == ["g"]
    # The giver goes on as it was, and members are who they were.
    assert db.do(lambda db: leases.append(db, giver, 2, RECORDS))
    assert {one.number for one in db.do(leases.members)} == {giver, receiver, third}


def test_it_may_be_done_again_and_changes_nothing_more(db: Shared) -> None:
    giver, receiver = db.join(), db.join()
    accepted(db, giver)
    assert hand(db, giver, receiver)
    ghost = owner(db)
    assert hand(db, giver, receiver)
    assert owner(db) == ghost
    count = db.do(lambda db: db.execute("SELECT count(*) FROM servers").fetchone())
    assert count == (3,)
    # Also where that one has died meanwhile: it is not the giver's any more.
    db.fence(giver, receiver)
    assert hand(db, giver, receiver)
    assert db.do(lambda db: leases.expired(db, giver, 0.0)) == [receiver, ghost]


def test_not_to_a_fenced_server_nor_by_one(db: Shared) -> None:
    giver, receiver = db.join(), db.join()
    accepted(db, giver)
    db.fence(giver, receiver)
    assert not hand(db, giver, receiver)
    assert not hand(db, giver, giver)
    assert owner(db) == giver
    other = db.join()
    db.fence(other, giver)
    assert not hand(db, giver, other)
    assert owner(db) == giver


def test_a_fence_of_the_giver_comes_wholly_before_or_after(db: Shared) -> None:
    giver, receiver, third = db.join(-1.0), db.join(), db.join()
    accepted(db, giver)
    give = partial(hand_over, me=giver, to=receiver, ids={"g": 1}, data=RECORDS)
    with standing(db.url, db.pool, lambda s: s.change("it", give)) as done:
        fenced = db.pool.submit(db.beside(partial(leases.fence, me=third, other=giver)))
        wait_for_lock(db.url)
    assert done.result(60) is True
    assert fenced.result(60) is True
    assert db.do(lambda db: leases.owned(db, giver)) == {}  # there is nothing to adopt from it


def test_what_came_back_after_a_lost_answer_is_not_handed_over_again(db: Shared) -> None:
    giver, receiver, third = db.join(), db.join(), db.join()
    accepted(db, giver)
    assert db.do(partial(epoch_of, me=giver, id_="g")) == 1
    assert db.do(partial(epoch_of, me=receiver, id_="g")) is None
    assert hand(db, giver, receiver)
    ghost = owner(db)
    assert ghost is not None
    # The receiver dies, and the giver adopts what it was to have.
    db.fence(third, receiver)
    assert db.do(lambda db: leases.fence(db, giver, ghost))
    adopted = [Adopted("g", [*restated(OpenGeneration(opened(1, generation="g")), 1)], 1)]
    assert db.do(lambda db: leases.adopt(db, giver, ghost, 2, adopted)) == {"g": 2}
    # An attempt that was under way for long, or one that does not know of it.
    for to in (receiver, third):
        assert hand(db, giver, to)
        assert owner(db) == giver
