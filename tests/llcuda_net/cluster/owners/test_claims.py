"""Claims of upstreams, on a PostgreSQL, in each order in which two of them can meet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from llcuda_net.cluster import leases
from llcuda_net.cluster.owners import claims
from llcuda_net.cluster.owners.claims import Claim
from tests.support.cluster.database import OVER, Shared, shared
from tests.support.storage.interleaving import standing, wait_for_lock
from tests.support.storage.postgres import Postgres

A, B = "http://a:8080", "http://b:8080"


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Shared]:
    with shared(postgres.new_database()) as out:
        yield out


def claim(db: Shared, me: int, *urls: str) -> bool:
    return db.do(lambda db: claims.claim(db, me, urls))


def known(db: Shared) -> dict[str, Claim]:
    return {one.url: one for one in db.do(claims.claims)}


def owners(db: Shared) -> dict[str, tuple[int | None, int]]:
    return {url: (one.server, one.epoch) for url, one in known(db).items()}


def test_an_upstream_has_one_owner(db: Shared) -> None:
    one, other = db.join(), db.join()
    assert claim(db, one, B, A)
    assert claim(db, one, A)  # the answer was lost
    assert claim(db, other, A)  # it is not fenced, and gets nothing
    assert owners(db) == {A: (one, 1), B: (one, 1)}
    assert known(db)[A].live


def test_of_two_that_claim_at_once_one_has_it(db: Shared) -> None:
    one, other = db.join(), db.join()
    first = partial(claims.claim, me=one, urls=[A])
    with standing(db.url, db.pool, lambda s: s.change("it", first)):
        second = db.pool.submit(db.beside(partial(claims.claim, me=other, urls=[A])))
        wait_for_lock(db.url)
    assert second.result(60) is True
    assert owners(db) == {A: (one, 1)}


def test_the_upstreams_of_a_fenced_server_are_for_one_of_the_others(db: Shared) -> None:
    gone, one, other = db.join(), db.join(), db.join()
    assert claim(db, gone, A, B)
    db.fence(one, gone)
    assert not known(db)[A].live
    assert not claim(db, gone, A)
    first = partial(claims.claim, me=one, urls=[A])
    with standing(db.url, db.pool, lambda s: s.change("it", first)):
        second = db.pool.submit(db.beside(partial(claims.claim, me=other, urls=[A, B])))
        wait_for_lock(db.url)
    assert second.result(60) is True
    assert owners(db) == {A: (one, 2), B: (other, 2)}


def test_a_fence_waits_for_a_claim_that_is_first(db: Shared) -> None:
    gone, one = db.join(OVER), db.join()
    first = partial(claims.claim, me=gone, urls=[A])
    with standing(db.url, db.pool, lambda s: s.change("it", first)):
        fenced = db.pool.submit(db.beside(partial(leases.fence, me=one, other=gone)))
        wait_for_lock(db.url)
        assert not fenced.done()
    assert fenced.result(60) is True
    assert owners(db) == {A: (gone, 1)}
    assert claim(db, one, A)
    assert owners(db) == {A: (one, 2)}


def test_a_claim_that_waits_for_a_fence_is_refused(db: Shared) -> None:
    gone, one = db.join(OVER), db.join()
    first = partial(leases.fence, me=one, other=gone)
    with standing(db.url, db.pool, lambda s: s.change("it", first)):
        second = db.pool.submit(db.beside(partial(claims.claim, me=gone, urls=[A])))
        wait_for_lock(db.url)
    assert second.result(60) is False
    assert owners(db) == {}


def test_who_gives_gives_only_what_is_his(db: Shared) -> None:
    one, other = db.join(), db.join()
    assert claim(db, one, A)
    assert claim(db, other, B)
    assert db.do(lambda db: claims.give(db, one, [A, B])) == 1
    assert owners(db) == {A: (None, 1), B: (other, 1)}
    assert claim(db, other, A)
    assert db.do(lambda db: claims.give(db, one, [A])) == 0
    assert owners(db) == {A: (other, 2), B: (other, 1)}
    db.do(lambda db: claims.give_all(db, other))
    assert owners(db) == {A: (None, 2), B: (None, 1)}


def test_a_wish_is_seen_until_it_is_granted_or_withdrawn(db: Shared) -> None:
    one, other, third = db.join(), db.join(), db.join()
    assert claim(db, one, A, B)
    assert known(db)[A].wanted_by is None
    db.do(lambda db: claims.ask(db, other, [A, B]))
    since = known(db)[A].wanted
    db.do(lambda db: claims.ask(db, other, [A]))
    wish = known(db)[A]
    assert wish.wanted_by == other
    assert wish.wanted >= since  # asking again does not begin anew
    db.do(lambda db: claims.ask(db, third, [A]))
    assert known(db)[A].wanted_by == third
    db.do(lambda db: claims.withdraw(db, third, [A, B]))
    assert (known(db)[A].wanted_by, known(db)[B].wanted_by) == (None, other)
    db.do(lambda db: claims.give(db, one, [B]))
    assert claim(db, other, B)
    assert known(db)[B].wanted_by is None
    db.do(lambda db: claims.ask(db, third, [A]))
    db.fence(one, third)
    assert known(db)[A].wanted_by is None  # nobody waits for the wishes of the dead
