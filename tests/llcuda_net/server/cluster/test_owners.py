"""Servers that agree on who asks which upstream, on a PostgreSQL and in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.lowlevel

from llcuda_net.cluster.owners import loads
from llcuda_net.cluster.owners.loads import Load, ModelLoad, OtherLoad
from llcuda_net.cluster.owners.plan import PATIENCE
from llcuda_net.cluster.standing import Standing
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.config.users import User
from llcuda_net.errors import StorageUnavailable
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest
from llcuda_net.server.cluster.owners import LOOK, Owners
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.pool import Pool
from tests.support.cluster.database import Shared, shared
from tests.support.cluster.shared import Place
from tests.support.storage.postgres import Postgres
from tests.support.upstream.scripted_upstream import Talker

ANN = User("ann")


class Server:
    """One with three upstreams, of which others have the same."""

    def __init__(self, db: Shared, upstreams: list[Talker], model: str | None = "m") -> None:
        self.place = Place(db)
        self.pool = Pool(
            [
                Backend(UpstreamSpec(f"http://u{n}:80", f"u{n}", model=model), upstream)
                for n, upstream in enumerate(upstreams)
            ]
        )
        self.scheduler = Scheduler(
            lambda ticket: self.pool.place(ticket.slot_request.key, "ann"),  # type: ignore[arg-type]
            100,
        )
        self.due = 0
        self.owners = Owners(
            self.place, self.pool, self.scheduler, claims=True, due=lambda key: self.due
        )
        self.running = trio.CancelScope()

    @property
    def uses(self) -> set[str]:
        return {one.name for one in self.pool.backends if one.owned}

    def submit(self, tokens: int = 0, model: str = "m") -> object:
        key = self.pool.key_of(model)
        request = SlotRequest(ANN, key, Requirement(key))
        return self.scheduler.submit(request, tokens_made=lambda: tokens)

    async def run(self) -> None:
        with self.running:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.pool.run)
                await self.pool.prepare()
                nursery.start_soon(self.scheduler.run)
                nursery.start_soon(self._follow)
                await nursery.start(self.owners.run)
                await trio.sleep_forever()

    async def _follow(self) -> None:
        while True:
            await self.pool.wait_change()
            self.scheduler.dispatch()

    def die(self, fenced_by: Server) -> None:
        """It ends, and another one takes over."""
        self.running.cancel()
        self.place.shared.fence(fenced_by.place.number, self.place.number)


@pytest.fixture(autouse=True)
def virtual_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads are as old as the clock of the test says: the database's clock is no virtual one."""
    said: dict[int, float] = {}
    exchange = loads.exchange

    def timed(db: Connection, me: int, load: Load) -> list[OtherLoad]:
        said[me] = now = trio.current_time()
        return [replace(one, age=now - said[one.server]) for one in exchange(db, me, load)]

    monkeypatch.setattr(loads, "exchange", timed)


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Shared]:
    with shared(postgres.new_database()) as out:
        yield out


@asynccontextmanager
async def servers(db: Shared, count: int, upstreams: int = 3) -> AsyncIterator[list[Server]]:
    talkers = [Talker(slots=1) for _ in range(upstreams)]
    found = [Server(db, talkers) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for server in found:
            nursery.start_soon(server.run)
            await trio.sleep(LOOK * 3)
        yield found
        nursery.cancel_scope.cancel()


def apart(found: list[Server]) -> bool:
    """Whether each upstream is used by one of them."""
    used = [name for server in found for name in server.uses]
    return sorted(used) == ["u0", "u1", "u2"]


async def test_one_server_asks_all_and_another_one_gets_its_part(
    db: Shared, autojump_clock: object
) -> None:
    async with servers(db, 1) as (one,):
        assert one.uses == {"u0", "u1", "u2"}
    async with servers(db, 2) as (gone, other):
        gone.place.shared.fence(other.place.number, one.place.number)
        await trio.sleep(3 * LOOK)
        assert apart([gone, other])
        assert sorted(len(server.uses) for server in (gone, other)) == [1, 2]
        gone.die(other)
        await trio.sleep(3 * LOOK)
        assert other.uses == {"u0", "u1", "u2"}


async def test_a_busy_upstream_is_given_when_its_slots_are_free(
    db: Shared, autojump_clock: object
) -> None:
    async with servers(db, 1) as (one,):
        tickets = [one.submit() for _ in range(3)]
        await trio.lowlevel.checkpoint()
        async with servers(db, 1) as (other,):
            assert (len(one.uses), other.uses) == (3, set())
            # The database's clock is no virtual one.
            sql = "UPDATE handovers SET asked = asked - make_interval(secs => %s)"
            db.do(lambda db: db.execute(sql, (PATIENCE,)))
            await trio.sleep(2.5 * LOOK)  # each has looked twice
            assert (len(one.uses), other.uses) == (2, set())  # it drains, and is not given yet
            waits = one.submit()
            for ticket in tickets:
                one.scheduler.remove(ticket)  # type: ignore[arg-type]
            await trio.sleep(3 * LOOK)
            assert waits.lease is not None  # type: ignore[attr-defined]
            assert apart([one, other])


async def test_who_is_no_member_uses_none(db: Shared, autojump_clock: object) -> None:
    async with servers(db, 1) as (one,):
        one.place.stands = Standing.STOPPED
        one.owners.stopped()
        assert one.uses == set()
        await trio.sleep(3 * LOOK)
        assert one.uses == set()
        one.place.stands = Standing.MEMBER
        one.owners.life(one.place.number)
        await trio.sleep(0.1)
        assert len(one.uses) == 3  # they are its own still


async def test_a_claim_that_is_answered_too_late_is_not_used(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db, [Talker()])
    change = one.place.change

    async def late(what, work):  # type: ignore[no-untyped-def]
        out = await change(what, work)
        if one.place.asked == 2:  # the claim
            one.place.stands = Standing.STOPPED
            one.owners.stopped()
        return out

    one.place.change = late  # type: ignore[method-assign]
    await one.owners.look()
    assert one.place.asked == 2
    assert one.uses == set()


async def test_a_database_that_is_away_is_asked_again(db: Shared, autojump_clock: object) -> None:
    async with servers(db, 1) as (one,):
        change = one.place.change

        async def away(what, work):  # type: ignore[no-untyped-def]
            raise StorageUnavailable("away", retry=True)

        one.place.change = away  # type: ignore[method-assign]
        await trio.sleep(5 * LOOK)
        assert len(one.uses) == 3  # as long as it is a member
        one.place.change = change  # type: ignore[method-assign]
        await trio.sleep(2.5 * LOOK)  # each has looked twice
        assert len(one.uses) == 3


async def test_requests_go_where_they_wait_least(db: Shared, autojump_clock: object) -> None:
    async with servers(db, 2) as (one, other):
        assert apart([one, other])
        few, many = sorted((one, other), key=lambda server: len(server.uses))
        assert few.owners.routing.route("m") is None
        few.submit()
        await trio.sleep(2.5 * LOOK)  # each has looked twice
        assert few.owners.routing.route("m") == many.place.number
        assert few.owners.routing.route(None) == many.place.number
        assert few.owners.routing.route("m") == many.place.number
        assert few.owners.routing.route("m") is None  # it has two slots, and two are on their way
        assert few.owners.routing.route("no such") is None
        assert few.owners.routing.models == dict.fromkeys(("m", "fake"), ModelLoad(("fake",), 2, 2))
        await trio.sleep(2.5 * LOOK)  # each has looked twice
        assert few.owners.routing.route("m") == many.place.number  # they never came
        for _ in range(3):
            many.submit()
        await trio.sleep(2.5 * LOOK)  # each has looked twice
        assert few.owners.routing.route("m") is None
        few.owners.stopped()
        assert few.owners.routing.route("m") is None


async def test_texts_are_embedded_by_who_has_an_upstream_for_that(
    db: Shared, autojump_clock: object
) -> None:
    async with servers(db, 2) as (one, other):
        await trio.sleep(2.5 * LOOK)  # each has looked twice
        assert one.owners.routing.embedder("m") is None
        assert one.owners.routing.embedder(None) is None
        for backend in one.pool.backends:
            backend.own(False)
        assert one.owners.routing.embedder("m") == other.place.number
        assert one.owners.routing.embedder(None) == other.place.number
        assert one.owners.routing.embedder("m", {other.place.number}) is None
        assert one.owners.routing.embedder("no such") is None
        one.owners.stopped()
        assert one.owners.routing.embedder("m") is None


async def test_what_users_were_served_counts_at_the_other_server(
    db: Shared, autojump_clock: object
) -> None:
    heard: list[tuple[str, float]] = []
    async with servers(db, 2) as (one, other):
        key = other.pool.key_of("m")

        def count(served, running):  # type: ignore[no-untyped-def]
            heard.extend((model, tokens) for model, _, _, tokens in served)

        other.scheduler.served_elsewhere = count  # type: ignore[method-assign]
        one.scheduler.remove(one.submit(tokens=7))  # type: ignore[arg-type]
        await trio.sleep(3 * LOOK)
    assert heard == [(key, 7.0)]


async def test_what_waits_for_a_slot_goes_where_one_is_free_and_each_server_takes_its_part(
    db: Shared, autojump_clock: object
) -> None:
    async with servers(db, 3, upstreams=5) as (one, other, third):
        await trio.sleep(4 * LOOK)
        idle, *busy = sorted((one, other, third), key=lambda server: -len(server.uses))
        assert [len(server.uses) for server in (idle, *busy)] == [2, 2, 1]
        for server in busy:
            for _ in range(len(server.uses) + 4):
                server.submit()
            server.due = 4
        await trio.sleep(0.9 * LOOK)  # each has looked once at most
        # The others may not have heard it yet.
        assert {server.owners.routing.room("m") for server in busy} == {None}
        await trio.sleep(2.2 * LOOK)
        # Both see two free slots, and take one each.
        for server in busy:
            assert server.owners.routing.room("m") == idle.place.number
            assert server.owners.routing.room("m") is None
        await trio.sleep(1.5 * LOOK)
        # They are on their way still.
        assert {server.owners.routing.room("m") for server in busy} == {None}
        busy[0].due = 0
        await trio.sleep(5 * LOOK)  # nothing came
        assert busy[0].owners.routing.room("m") is None  # it has said that nothing is to go
        assert busy[1].owners.routing.room("m") == idle.place.number
        assert busy[1].owners.routing.room("m") == idle.place.number
        assert busy[1].owners.routing.room("m") is None


async def test_nothing_goes_while_a_slot_is_free_here(db: Shared, autojump_clock: object) -> None:
    async with servers(db, 2) as (one, other):
        one.due = 1
        await trio.sleep(3 * LOOK)
        assert one.owners.routing.room("m") is None
        for _ in range(3):
            one.submit()
        await trio.sleep(3 * LOOK)
        assert one.owners.routing.room("m") == other.place.number
        one.owners.stopped()
        assert one.owners.routing.room("m") is None


async def test_models_of_one_name_are_told_apart_by_servers_that_never_asked_them(
    db: Shared, autojump_clock: object
) -> None:
    talkers = [Talker(slots=1) for _ in range(3)]
    talkers[1].logprobs = {n: -0.1 - 2 * n for n in range(20)}
    found = [Server(db, talkers, model=None) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for server in found:
            nursery.start_soon(server.run)
        await trio.sleep(8 * LOOK)
        assert apart(found)
        assert sum(one.probes for one in talkers) < 9
        by_name = {name: server for server in found for name in server.uses}
        # The name means the model of the first one, which the last one has, too.
        for server in found:
            keys = [one.model_key for one in server.pool.backends]
            assert keys[0] == keys[2] != keys[1]
            assert server.pool.key_of("fake") == keys[0]
        assert not by_name["u0"].pool.only_elsewhere("fake")
        assert by_name["u1"].pool.only_elsewhere("fake")
        assert by_name["u1"].pool.only_elsewhere(None)
        assert by_name["u0"].owners.routing.route("fake") is None
        for model in ("fake", None):
            to = {by_name["u1"].owners.routing.route(model) for _ in range(2)}
            assert to == {by_name[name].place.number for name in ("u0", "u2")}
        # Full is full, whatever the other model has free.
        tickets = {name: by_name[name].submit(model="fake") for name in ("u0", "u2")}
        await trio.sleep(3 * LOOK)
        assert by_name["u0"].owners.routing.route("fake") is None
        # What comes of another model there, all of them hear.
        by_name["u2"].scheduler.remove(tickets["u2"])  # type: ignore[arg-type]
        talkers[2].logprobs = {n: -0.2 - 3 * n for n in range(20)}
        talkers[2].die()
        await trio.sleep(3 * LOOK)
        talkers[2].back()
        with trio.fail_after(120):
            # Polled: some looks later all have heard it.
            while any(len({o.model_key for o in x.pool.backends}) < 3 for x in found):  # noqa: ASYNC110
                await trio.sleep(LOOK)
        nursery.cancel_scope.cancel()
