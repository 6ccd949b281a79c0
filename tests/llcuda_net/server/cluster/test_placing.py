"""What an idempotency key means over the servers of a cluster, on a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio

from llcuda_net.cluster import keys
from llcuda_net.cluster.keys import Key
from llcuda_net.cluster.standing import Standing
from llcuda_net.config.users import User
from llcuda_net.errors import (
    InvalidRequest,
    KeyConflict,
    LeaseLost,
    Overloaded,
    RequestError,
    ShuttingDown,
    StorageUnavailable,
    UpstreamUnavailable,
)
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.request import hash_of_request
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.placing import _HANDOVER, Asked, NowhereError, Placing, check_sent
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import Level, Result
from llcuda_protocol import Generate
from tests.support.cluster.database import Shared, shared
from tests.support.cluster.shared import Place
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result

ANN = User("ann")


class Server:
    """A gateway that begins what it is given, and never runs it."""

    def __init__(self, db: Shared, route: int | None = None) -> None:
        self.place = Place(db)
        self.registry = Registry()
        self.begun: list[Generation] = []
        self.sent: list[tuple[str | None, int]] = []
        self.refusal: RequestError | None = None
        self.elsewhere = False
        self.alone: set[str] = set()
        #: What its store has.
        self.stored = generation(ask())
        self.routes = route
        #: What becomes of what is sent, in turn: an error of the other server, or None.
        self.outcomes: list[RequestError | None] = []
        self.alone_elsewhere = False
        self.placing = Placing(
            self.place, self, lambda model: self.routes, self._send, self._settle
        )

    def _send(self, asked: Asked, server: int) -> Generation:
        self.sent.append((asked.request.key, server))
        sent = generation(asked.send())
        sent.error = self.outcomes.pop(0) if self.outcomes else None
        return sent

    async def _settle(self, generation: Generation) -> None:
        check_sent(generation)

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        return self.stored

    def asked_elsewhere(self, model: str | None) -> bool:
        return self.elsewhere

    def only_elsewhere(self, model: str | None) -> bool:
        return self.alone_elsewhere

    def level(self, wanted: str | None) -> Level:
        return Level(wanted or "cluster")

    def keeps_alone(self, id_: str) -> bool:
        return id_ in self.alone

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        id_: str | None = None,
    ) -> Generation:
        if self.refusal is not None:
            raise self.refusal
        if request.key is not None:
            hash_ = hash_of_request(request, api)
            same = self.registry.find_by_key(request.key, hash_, user.name)
            if same is not None:
                return same
        found = generation(request, id_)
        self.registry.add(found)
        self.begun.append(found)
        return found

    async def begin(self, request: Generate, *, here: bool = False) -> Generation:
        return await self.placing.begin(Asked(request, ANN, None, None, None, here=here))


def generation(request: Generate, id_: str | None = None) -> Generation:
    hash_ = hash_of_request(request)
    found = Generation("x", None, {}, 60.0, key=request.key, request_hash=hash_, owner="ann")
    found.id = id_ or found.id
    return found


def ask(key: str | None = "k", prompt: str = "hello", **more: Any) -> Generate:
    return Generate(1, 1 << 20, prompt=prompt, key=key, **more)


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Shared]:
    with shared(postgres.new_database()) as out:
        yield out


def meaning(db: Shared, key: str = "k") -> str | None:
    held = db.do(partial(keys.find, owner="ann", key=key))
    return None if held is None else held.generation


def over(db: Shared, one: Generation, state: str = "done") -> None:
    """It has ended, and its result is stored."""
    store = PostgresStore(db.url, write=True)
    store.put([result(1, id=one.id, key=one.key, owner="ann", state=state)])
    store.close()


async def test_a_key_runs_once_whichever_servers_it_is_sent_to(
    db: Shared, autojump_clock: object
) -> None:
    one, other = Server(db), Server(db)
    first = await one.begin(ask())
    assert meaning(db) == first.id
    other.place.elsewhere[first.id] = first
    assert await other.begin(ask()) is first
    assert await one.begin(ask()) is first
    assert (one.begun, other.begun) == ([first], [])
    with pytest.raises(KeyConflict):
        await other.begin(ask(prompt="something else"))
    with pytest.raises(KeyConflict):
        await one.begin(ask(prompt="something else"))


async def test_several_at_once_are_one(db: Shared, autojump_clock: object) -> None:
    one, other = Server(db), Server(db)
    found: list[Generation] = []

    async def send(server: Server) -> None:
        found.append(await server.begin(ask()))

    async def follow() -> None:
        while not one.begun + other.begun:  # noqa: ASYNC110 - in virtual time
            await trio.sleep(0.01)
        (begun,) = one.begun + other.begun
        for server in (one, other):
            if begun not in server.begun:
                server.place.elsewhere[begun.id] = begun

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(send, one)
            nursery.start_soon(send, other)
        nursery.start_soon(follow)
    assert len(found) == 6
    assert len(set(found)) == 1


async def test_without_a_key_or_with_a_fresh_one_nothing_is_looked_up(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db)
    asked = one.place.asked
    await one.begin(ask(key=None))
    await one.begin(ask(fresh=True))
    assert (one.place.asked, meaning(db)) == (asked, None)
    # What is in no journal is taken in no transaction, so its key is taken before.
    kept = await one.begin(ask("l", fresh=True, level="memory"))
    assert meaning(db, "l") == kept.id


async def test_what_has_done_its_work_answers_from_the_store(
    db: Shared, autojump_clock: object
) -> None:
    one, other = Server(db), Server(db)
    first = await one.begin(ask())
    over(db, first)
    assert await other.begin(ask()) is other.stored
    assert (other.begun, meaning(db)) == ([], first.id)
    with pytest.raises(KeyConflict):
        await other.begin(ask(prompt="other"))
    with pytest.raises(InvalidRequest, match="not fresh"):
        await Server(db).begin(ask(fresh=True, level="memory"))


async def test_what_has_failed_is_tried_again_once(db: Shared, autojump_clock: object) -> None:
    one, other = Server(db), Server(db)
    first = await one.begin(ask())
    over(db, first, "failed")
    again = await other.begin(ask())
    assert again is not first
    assert meaning(db) == again.id
    first.state, first.ended = State.FAILED, True
    one.place.elsewhere[again.id] = again
    assert await one.begin(ask()) is again


async def test_what_is_refused_keeps_no_key(db: Shared, autojump_clock: object) -> None:
    one = Server(db)
    one.refusal = Overloaded("the queue is full", retry=True)
    with pytest.raises(Overloaded):
        await one.begin(ask())
    assert meaning(db) is None
    one.refusal = None
    assert meaning(db) is None
    assert (await one.begin(ask())).id == meaning(db)


async def test_a_request_waits_for_the_next_server_of_its_upstreams(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db)
    one.refusal = UpstreamUnavailable("nobody asks them now", retry=True)
    with pytest.raises(UpstreamUnavailable):
        await one.begin(ask())
    assert (trio.current_time() < 1, meaning(db)) == (True, None)
    one.elsewhere = True

    async def claim() -> None:
        await trio.sleep(6)
        one.refusal = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(claim)
        begun = await one.begin(ask())
    assert meaning(db) == begun.id
    one.refusal = UpstreamUnavailable("nobody ever does", retry=True)
    with pytest.raises(UpstreamUnavailable):
        await one.begin(ask("other"))


async def test_what_a_server_has_no_longer_is_begun_again_there(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db)
    first = await one.begin(ask(level="memory"))
    first.scope.cancel()
    again = await one.begin(ask(level="memory"))
    assert again is not first
    assert meaning(db) == again.id
    one.registry.forget(again)
    one.alone.add(again.id)  # it is transient, and kept here only: its run finds it
    with trio.move_on_after(1):
        await one.begin(ask(level="memory"))
    assert meaning(db) == again.id
    one.alone.clear()
    third = await one.begin(ask(level="memory"))
    assert meaning(db) == third.id


async def test_what_was_handed_over_is_found_where_it_is(
    db: Shared, autojump_clock: object
) -> None:
    one, other = Server(db), Server(db)
    first = await one.begin(ask())
    sql = "INSERT INTO generations (id, owner, server) VALUES (%s, 'ann', %s)"
    db.do(lambda db: db.execute(sql, (first.id, other.place.number)))
    one.registry.remove(first, stored=True)
    one.place.elsewhere[first.id] = first
    assert await one.begin(ask()) is first
    assert (len(one.begun), meaning(db)) == (1, first.id)


async def test_what_is_cancelled_is_begun_again_when_it_is_over(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db)
    first = await one.begin(ask())
    sql = "INSERT INTO generations (id, owner, server) VALUES (%s, 'ann', %s)"
    db.do(lambda db: db.execute(sql, (first.id, one.place.number)))
    first.scope.cancel()
    one.place.elsewhere[first.id] = first  # it would be found, were it asked for

    async def end() -> None:
        await trio.sleep(1)
        db.do(lambda db: db.execute("DELETE FROM generations"))
        over(db, first, "cancelled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        again = await one.begin(ask())
    assert again is not first
    assert trio.current_time() >= 1
    assert meaning(db) == again.id


async def test_one_that_is_taken_and_not_found_is_waited_for(
    db: Shared, autojump_clock: object
) -> None:
    one, other = Server(db), Server(db)
    taken = Key("ann", "k", "g", hash_of_request(ask()))
    db.do(partial(keys.claim, me=one.place.number, keys=[taken]))
    before = trio.current_time()
    with pytest.raises(StorageUnavailable, match="not found there yet") as refused:
        await other.begin(ask())
    assert refused.value.retry
    assert 5 < trio.current_time() - before < 20
    # Its server dies before it has accepted anything: then it is nobody's.
    db.fence(other.place.number, one.place.number)
    begun = await other.begin(ask())
    assert meaning(db) == begun.id


async def test_a_fenced_server_takes_no_key(db: Shared, autojump_clock: object) -> None:
    one, other = Server(db), Server(db)
    db.fence(other.place.number, one.place.number)
    one.place.stands = Standing.FENCED
    with pytest.raises(LeaseLost):
        await one.begin(ask())
    assert (one.begun, meaning(db)) == ([], None)


async def test_a_request_goes_where_it_waits_least_unless_it_came_from_there(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db, route=7)
    await one.begin(ask())
    await one.begin(ask(None))
    await one.begin(ask("fresh", fresh=True))
    assert one.sent == [("k", 7), (None, 7), ("fresh", 7)]
    assert (one.begun, meaning(db)) == ([], None)  # the other one takes the key
    await one.begin(ask(), here=True)
    assert len(one.begun) == 1
    await one.begin(ask())  # it is known where that runs
    assert len(one.sent) == 3


async def test_keys_of_what_is_gone_are_swept(db: Shared, autojump_clock: object) -> None:
    one = Server(db)
    first, second, third = [await one.begin(ask(key, level="memory")) for key in "abc"]
    over(db, first)
    one.registry.remove(second, stored=True)
    one.alone.add(third.id)
    one.registry.remove(third, stored=True)
    one.place.stands = Standing.STOPPED
    with pytest.raises(LeaseLost):  # what was set aside may go on
        await one.placing.sweep_once()
    assert meaning(db, "b") == second.id
    one.place.stands = Standing.MEMBER
    await one.placing.sweep_once()
    assert [meaning(db, key) for key in "abc"] == [first.id, None, third.id]


NONE_THERE = UpstreamUnavailable("another server asks it now", retry=True)


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize(
    "refusal", [NONE_THERE, ShuttingDown("it stops"), LeaseLost("it is lost", retry=True)]
)
async def test_what_another_server_refuses_is_placed_again_and_runs_once(
    db: Shared, autojump_clock: object, key: str | None, refusal: RequestError
) -> None:
    one = Server(db, route=7)
    one.outcomes = [refusal, refusal, None]
    found = await one.begin(ask(key))
    assert one.begun == []
    assert found.error is None
    assert [server for _, server in one.sent] == [7, 7, 7]
    first, *again = (name for name, _ in one.sent)
    assert first == key
    assert again == [found.key] * 2  # by which the other server knows it, if it has begun after all
    assert found.key is not None


async def test_what_was_accepted_elsewhere_is_placed_once(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db)
    sent = generation(ask())
    sent.error, sent.accepted = NONE_THERE, True
    await one._settle(sent)
    sent.accepted = False
    with pytest.raises(NowhereError):
        await one._settle(sent)
    one = Server(db, route=7)
    one.outcomes = [Overloaded("the queue is full")]  # true everywhere: its user is told
    assert (await one.begin(ask())).error is not None
    assert len(one.sent) == 1


async def test_a_request_waits_while_servers_change_who_asks_its_upstreams(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db)
    one.elsewhere = one.alone_elsewhere = True
    begun = trio.current_time()

    async def settle() -> None:
        await trio.sleep(5.0)
        assert one.begun == []
        one.alone_elsewhere = False  # this server has got it

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle)
        found = await one.begin(ask())
    assert one.begun == [found]
    assert 5.0 <= trio.current_time() - begun < 6.0


async def test_where_that_does_not_end_it_waits_here(db: Shared, autojump_clock: object) -> None:
    one = Server(db, route=7)
    one.elsewhere = one.alone_elsewhere = True
    one.outcomes = [NONE_THERE] * 1000
    begun = trio.current_time()
    found = await one.begin(ask())
    assert one.begun == [found]
    assert _HANDOVER <= trio.current_time() - begun < _HANDOVER + 1.0


async def test_what_was_sent_here_is_refused_at_once_where_others_alone_have_its_model(
    db: Shared, autojump_clock: object
) -> None:
    one = Server(db, route=7)
    one.elsewhere = one.alone_elsewhere = True
    begun = trio.current_time()
    with pytest.raises(UpstreamUnavailable) as caught:
        await one.begin(ask(None), here=True)
    assert caught.value.retry
    assert (one.sent, one.begun) == ([], [])
    assert trio.current_time() == begun
