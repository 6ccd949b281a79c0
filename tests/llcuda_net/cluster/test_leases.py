"""The statements themselves, on a PostgreSQL, in each order in which two of them can meet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeVar

import pytest

from llcuda_net.cluster import leases
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted
from tests.support.cluster.database import LONG, OVER, Shared
from tests.support.storage.interleaving import standing, wait_for_lock
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result

_T = TypeVar("_T")


class Cluster(Shared):
    """A database that servers share, and what is asked of it here."""

    def append(self, server: int, number: int, data: bytes = b"x") -> bool:
        return self.do(lambda db: leases.append(db, server, number, data))

    def journal(self, server: int) -> list[bytes]:
        return self.do(lambda db: [data for _, data in leases.journal(db, server)])

    def try_to_fence(self, me: int, other: int) -> bool:
        return self.do(lambda db: leases.fence(db, me, other))


@pytest.fixture
def cluster(postgres: Postgres) -> Iterator[Cluster]:
    with ThreadPoolExecutor(4) as pool:
        out = Cluster(postgres.new_database(), pool)
        yield out
        out.session.close()


def test_a_batch_is_there_once_however_often_it_is_sent(cluster: Cluster) -> None:
    one = cluster.join(LONG)
    assert cluster.append(one, 1, b"a")
    assert cluster.append(one, 1, b"a")
    assert cluster.append(one, 2, b"b")
    assert cluster.journal(one) == [b"a", b"b"]
    assert not cluster.append(one + 7, 1, b"c")  # no such server


def test_the_same_batch_on_two_connections_waits_for_the_first(cluster: Cluster) -> None:
    one = cluster.join(LONG)
    again = partial(leases.append, me=one, number=1, data=b"a")
    with standing(cluster.url, cluster.pool, lambda s: s.change("it", again)) as first:
        second = cluster.pool.submit(cluster.beside(again))
        wait_for_lock(cluster.url)
        assert cluster.journal(one) == []
    assert first.result(60) is True
    assert second.result(60) is True
    assert cluster.journal(one) == [b"a"]


def test_who_is_fenced_writes_nothing_more(cluster: Cluster) -> None:
    one, other = cluster.join(OVER), cluster.join(LONG)
    assert cluster.append(one, 1)
    assert cluster.do(lambda db: leases.expired(db, other, 0)) == [one]
    assert cluster.do(lambda db: leases.expired(db, one, 0)) == []
    assert cluster.try_to_fence(other, one)
    assert cluster.try_to_fence(other, one)  # the answer was lost
    assert not cluster.append(one, 2)
    assert not cluster.append(one, 1)  # it may be there, but is not to be shown any more
    assert not cluster.do(lambda db: leases.renew(db, one, LONG))
    assert not cluster.do(lambda db: leases.append(db, one, 3, b"x", [Accept("g", "")]))
    assert not cluster.try_to_fence(one, other)
    assert cluster.journal(one) == [b"x"]
    assert cluster.do(lambda db: leases.owned(db, one)) == {}


def test_nobody_fences_who_has_renewed_or_himself(cluster: Cluster) -> None:
    one, other = cluster.join(OVER), cluster.join(LONG)
    assert cluster.do(lambda db: leases.renew(db, one, LONG))
    assert not cluster.try_to_fence(other, one)
    assert cluster.do(lambda db: leases.expired(db, other, 0)) == []
    assert not cluster.try_to_fence(other, other + 5)
    assert cluster.do(lambda db: leases.renew(db, one, OVER))
    assert not cluster.try_to_fence(one, one)
    assert cluster.append(one, 1)
    assert cluster.do(lambda db: leases.expired(db, other, 0)) == [one]


def test_a_write_that_is_first_is_seen_by_the_fence(cluster: Cluster) -> None:
    one, other = cluster.join(OVER), cluster.join(LONG)

    def fence_and_read(db: Connection) -> list[bytes]:
        assert leases.fence(db, other, one)
        return [data for _, data in leases.journal(db, one)]

    write = partial(leases.append, me=one, number=1, data=b"a")
    with standing(cluster.url, cluster.pool, lambda s: s.change("it", write)) as written:
        read = cluster.pool.submit(cluster.beside(fence_and_read))
        wait_for_lock(cluster.url)
        assert not read.done()
    assert written.result(60) is True
    assert read.result(60) == [b"a"]


def test_a_fence_that_is_first_refuses_the_write(cluster: Cluster) -> None:
    one, other = cluster.join(OVER), cluster.join(LONG)
    fence = partial(leases.fence, me=other, other=one)
    with standing(cluster.url, cluster.pool, lambda s: s.change("it", fence)) as fenced:
        write = partial(leases.append, me=one, number=1, data=b"a")
        written = cluster.pool.submit(cluster.beside(write))
        wait_for_lock(cluster.url)
        assert not written.done()
    assert fenced.result(60) is True
    assert written.result(60) is False
    assert cluster.journal(one) == []


def test_a_renewal_that_is_first_keeps_the_lease(cluster: Cluster) -> None:
    one, other = cluster.join(OVER), cluster.join(LONG)
    renew = partial(leases.renew, me=one, seconds=LONG)
    with standing(cluster.url, cluster.pool, lambda s: s.change("it", renew)):
        fence = partial(leases.fence, me=other, other=one)
        fenced = cluster.pool.submit(cluster.beside(fence))
        wait_for_lock(cluster.url)
    assert fenced.result(60) is False
    assert cluster.append(one, 1)


def test_a_renewal_does_not_wait_for_a_write(cluster: Cluster) -> None:
    one = cluster.join(LONG)
    write = partial(leases.append, me=one, number=1, data=b"a")
    with standing(cluster.url, cluster.pool, lambda s: s.change("it", write)):
        assert cluster.do(lambda db: leases.renew(db, one, LONG))


def test_of_two_that_fence_one_adopts(cluster: Cluster) -> None:
    gone, one, other = cluster.join(OVER), cluster.join(LONG), cluster.join(LONG)
    fence = partial(leases.fence, me=one, other=gone)
    with standing(cluster.url, cluster.pool, lambda s: s.change("it", fence)) as first:
        fence = partial(leases.fence, me=other, other=gone)
        second = cluster.pool.submit(cluster.beside(fence))
        wait_for_lock(cluster.url)
    assert (first.result(60), second.result(60)) == (True, False)
    assert cluster.do(lambda db: leases.expired(db, other, 0)) == []


def test_two_that_fence_each_other_are_not_both_fenced(cluster: Cluster) -> None:
    one, other = cluster.join(OVER), cluster.join(OVER)
    works = [partial(leases.fence, me=one, other=other), partial(leases.fence, me=other, other=one)]
    done = [cluster.pool.submit(cluster.beside(work)) for work in works]
    assert sorted(future.result(60) for future in done) == [False, True]
    assert [cluster.append(server, 1) for server in (one, other)].count(True) == 1


def taken_over(cluster: Cluster) -> tuple[int, int]:
    """Two servers: one that is fenced, with two generations, and the one that is to adopt them."""
    gone, one = cluster.join(OVER), cluster.join(LONG)
    for number, name in enumerate(("g", "h"), 1):
        data = name.encode()
        accept = partial(leases.append, accepts=[Accept(name, "ann")])
        assert cluster.do(partial(accept, me=gone, number=number, data=data))
    assert cluster.try_to_fence(one, gone)
    return gone, one


def test_generations_move_with_their_logs(cluster: Cluster) -> None:
    gone, one = taken_over(cluster)
    assert cluster.do(lambda db: leases.owned(db, gone)) == {"g": 1, "h": 1}
    adopt = partial(leases.adopt, me=one, other=gone)
    some = [Adopted("g", [b"log of g"]), Adopted("none", [b"never"])]
    assert cluster.do(lambda db: adopt(db, number=1, generations=some)) == {"g": 2}
    assert cluster.do(lambda db: adopt(db, number=1, generations=some)) == {"g": 2}  # again
    assert cluster.journal(one) == [joined([b"log of g"])]
    assert not cluster.do(lambda db: leases.adopted(db, one, gone))
    rest = [Adopted("h", [b"log of h"])]
    assert cluster.do(lambda db: adopt(db, number=2, generations=rest)) == {"h": 2}
    assert cluster.do(lambda db: leases.adopted(db, one, gone))
    assert cluster.journal(gone) == []
    assert cluster.journal(one) == [joined([b"log of g"]), joined([b"log of h"])]
    assert cluster.do(lambda db: leases.owned(db, one)) == {"g": 2, "h": 2}
    assert not cluster.try_to_fence(one, gone)
    assert cluster.do(lambda db: leases.expired(db, one, 0)) == []


def test_an_adopter_that_dies_is_followed_by_another(cluster: Cluster) -> None:
    gone, one = taken_over(cluster)
    adopt = partial(leases.adopt, generations=[Adopted("g", [b"g"])], number=1)
    assert cluster.do(lambda db: adopt(db, me=one, other=gone)) == {"g": 2}
    heir = cluster.join(LONG)
    assert not cluster.try_to_fence(heir, gone)  # the adopter lives
    assert cluster.do(lambda db: leases.adopt(db, heir, gone, 1, [Adopted("h", [b"h"])])) is None
    assert cluster.do(lambda db: leases.renew(db, one, OVER))
    assert cluster.do(lambda db: leases.expired(db, heir, 0)) == [one]
    assert cluster.try_to_fence(heir, one)
    rest = [Adopted("h", [b"h"])]
    assert cluster.do(lambda db: leases.adopt(db, one, gone, 2, rest)) is None  # it wakes up
    assert cluster.do(lambda db: leases.owned(db, gone)) == {"h": 1}
    assert cluster.do(lambda db: leases.expired(db, heir, 0)) == [gone, one]
    assert cluster.try_to_fence(heir, gone)
    assert cluster.do(lambda db: adopt(db, me=one, other=gone)) is None
    moved = [Adopted("g", [b"g"]), Adopted("h", [b"h"])]
    assert cluster.do(lambda db: leases.adopt(db, heir, one, 1, moved)) == {"g": 3}
    assert cluster.do(lambda db: leases.adopt(db, heir, gone, 2, moved)) == {"g": 3, "h": 2}
    for server in (one, gone):
        assert cluster.do(lambda db: leases.adopted(db, heir, server))  # noqa: B023
    assert cluster.journal(heir) == [joined([b"g"]), joined([b"h"])]


def test_a_fence_waits_for_an_adoption_that_is_first(cluster: Cluster) -> None:
    gone, one = taken_over(cluster)
    assert cluster.do(lambda db: leases.renew(db, one, OVER))
    heir = cluster.join(LONG)
    adopt = partial(leases.adopt, me=one, other=gone, number=1, generations=[Adopted("g", [b"g"])])
    with standing(cluster.url, cluster.pool, lambda s: s.change("it", adopt)) as first:
        fence = partial(leases.fence, me=heir, other=one)
        fenced = cluster.pool.submit(cluster.beside(fence))
        wait_for_lock(cluster.url)
    assert first.result(60) == {"g": 2}
    assert fenced.result(60)
    assert cluster.do(lambda db: leases.owned(db, one)) == {"g": 2}


def test_a_fenced_server_ends_nothing_that_its_adopter_has_ended(cluster: Cluster) -> None:
    """Else it would tell its readers its own end, which need not be the one that is stored."""
    accepts = [Accept("g", "ann")]
    me, other = cluster.join(OVER), cluster.join(LONG)
    assert cluster.do(lambda db: leases.append(db, me, 1, b"x", accepts))
    assert cluster.try_to_fence(other, me)
    assert cluster.do(lambda db: leases.adopt(db, other, me, 1, [Adopted("g", [b"x"])]))

    def end(db: Connection, ids: list[str]) -> None:
        assert leases.release(db, other, ids)

    with closing(PostgresStore(cluster.url, write=True)) as store:
        store.guard(end)
        store.put([result(1, id="g")])
    cluster.do(lambda db: end(db, ["g"]))  # again, after a lost answer
    assert not cluster.do(lambda db: leases.release(db, me, ["g"]))
