"""Takeovers on a real PostgreSQL; what is adopted, the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg.pq import TransactionStatus

from llcuda_net.cluster import leases, recovery
from llcuda_net.cluster.takeover import Takeover
from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.migrations import migrate
from llcuda_net.storage.records import Appended, Level, Opened, encode
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted, Former
from tests.support.storage.postgres import Postgres

#: Seconds of a lease that is over as soon as it is taken, and of one that no test outlives.
OVER, LONG = -1.0, 3600.0


class Servers:
    """A database with servers, one of which takes over."""

    def __init__(self, url: str) -> None:
        self._session = Session(url, write=True)
        migrate(self._session)
        self.me = self.join(LONG)
        self.adopted: list[str] = []
        self.failure: StorageError | None = None
        self.membership = SimpleNamespace(number=self.me, due=(), may_take_over=lambda: True)
        self.takeover = Takeover(url, self.membership, self._adopt)  # type: ignore[arg-type]

    def close(self) -> None:
        self.takeover.close()
        self._session.close()

    def do(self, change: Callable[[Connection], Any]) -> Any:
        return self._session.change("it", change)

    def join(self, seconds: float) -> int:
        number = self.do(lambda db: leases.join(db, "name", "127.0.0.1:1", seconds))
        assert isinstance(number, int)
        return number

    def generation(self, server: int, id_: str, slot: int = 1) -> None:
        """One that runs there, with a token."""
        opened = Opened(generation=id_, request={}, level=Level.CLUSTER, owner="", created=slot)
        opened.slot = slot
        data = joined([encode(opened), encode(Appended(slot, 0, ["hello"], [1]))])
        accept = [Accept(id_, "")]
        assert self.do(lambda db: leases.append(db, server, slot, data, accept))

    async def _adopt(self, former: Former) -> None:
        if self.failure is not None:
            raise self.failure
        rows = [Adopted(one.id, [b"\xc0"]) for one in former.generations]
        assert all(one.log.pieces == ["hello"] for one in former.generations)
        assert not former.whole
        other = former.number
        adopt = partial(leases.adopt, me=self.me, other=other, number=other, generations=rows)
        self.adopted += self.do(adopt)

    async def look(self) -> list[int]:
        """Take over from all that are due; who is due then."""
        self.membership.due = tuple(self.due())
        await self.takeover.look()
        return self.due()

    def due(self) -> list[int]:
        found = self.do(lambda db: leases.expired(db, self.me, 0.0))
        assert isinstance(found, list)
        return found


@contextmanager
def _servers(postgres: Postgres) -> Iterator[Servers]:
    out = Servers(postgres.new_database())
    try:
        yield out
    finally:
        out.close()


@pytest.fixture
def servers(postgres: Postgres) -> Iterator[Servers]:
    with _servers(postgres) as out:
        yield out


async def test_all_that_a_server_had_is_adopted_once(servers: Servers) -> None:
    other = servers.join(LONG)
    for slot, id_ in enumerate(("a", "b", "c"), 1):
        servers.generation(other, id_, slot)
    assert await servers.look() == []
    assert servers.adopted == []  # it lives
    servers.do(lambda db: leases.renew(db, other, OVER))
    assert await servers.look() == []
    assert servers.adopted == ["a", "b", "c"]
    assert (servers.takeover.servers, servers.takeover.generations) == (1, 3)
    servers.membership.due = (other,)  # an old look
    await servers.takeover.look()
    assert (servers.takeover.servers, len(servers.adopted)) == (1, 3)


async def test_a_server_with_nothing_is_only_fenced(servers: Servers) -> None:
    other = servers.join(OVER)
    assert await servers.look() == []
    assert servers.adopted == []
    assert not servers.do(lambda db: leases.hold(db, other))


async def test_a_takeover_that_fails_is_gone_on_with(servers: Servers) -> None:
    first, second = servers.join(LONG), servers.join(LONG)
    servers.generation(first, "a")
    servers.generation(second, "b")
    for one in (first, second):
        servers.do(partial(leases.renew, me=one, seconds=OVER))
    servers.failure = StorageError("away", StorageError.BUSY)
    assert await servers.look() == [first, second]  # fenced, and this one's to adopt
    servers.failure = None
    assert await servers.look() == []
    assert servers.adopted == ["a", "b"]


async def test_who_is_no_member_takes_over_nothing(servers: Servers) -> None:
    other = servers.join(OVER)
    servers.membership.may_take_over = lambda: False
    assert await servers.look() == [other]


async def test_who_is_fenced_takes_over_nothing(servers: Servers) -> None:
    other, third = servers.join(OVER), servers.join(LONG)
    assert servers.do(lambda db: leases.fence_former(db, third, servers.me))
    assert other in await servers.look()
    assert servers.do(lambda db: leases.fence(db, third, other))


async def test_a_long_journal_is_read_in_no_transaction(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.generation(servers.join(OVER), "a")
    read, states = recovery.read, []

    def watched(db: Connection, server: int) -> Former:
        states.append(db.info.transaction_status)
        return read(db, server)

    monkeypatch.setattr(recovery, "read", watched)
    assert await servers.look() == []
    assert servers.adopted == ["a"]
    assert states == [TransactionStatus.IDLE]
