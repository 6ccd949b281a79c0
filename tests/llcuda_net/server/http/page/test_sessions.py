"""Who is signed in: for how long, by which token, in how many browsers, and after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn, TypeVar, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.errors import RequestError, StorageUnavailable
from llcuda_net.server.http.page import sessions as module
from llcuda_net.server.http.page.cookies import LIFE
from llcuda_net.server.http.page.sessions import RENEWED, Sessions, SignedIn
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects.database import Objects
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.sessions import every
from tests.support.server.batch_rig import MemoryObjects

_T = TypeVar("_T")
ANN, BOB = "token-of-ann-12345", "token-of-bob-12345"
TOKENS = f"{ANN} name=ann role=admin\n{BOB} name=bob\n"


class Clock:
    """Unix time, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def server(
    folder: Path | None = None, users: Users | None = None, clock: Clock | None = None
) -> AsyncIterator[Sessions]:
    """Sessions of one life of a server."""
    objects = None if folder is None else Objects(folder)
    if objects is not None:
        await objects.open()
    found = Sessions(KeptObjects(objects), users or Users.parse(TOKENS), clock or Clock())
    try:
        await found.load()
        yield found
    finally:
        if objects is not None:
            await objects.aclose()


async def begun(sessions: Sessions, token: str = ANN) -> SignedIn:
    found = await sessions.begin(token)
    assert found is not None
    return found


def user(sessions: Sessions, *ids: str) -> str | None:
    found = sessions.find(ids)
    return None if found is None else found.user.name


async def test_a_token_begins_a_session_with_an_id_of_its_own() -> None:
    async with server() as sessions:
        one, two = await begun(sessions), await begun(sessions)
        assert one.id != two.id
        assert ANN not in one.id
        assert user(sessions, one.id) == "ann"
        found = sessions.find([one.id])
        assert found is not None
        assert found.user.admin
        for wrong in ("", "x" * 43, ANN, one.id[:-1]):
            assert user(sessions, wrong) is None
        assert await sessions.begin("token-of-nobody") is None
        assert await sessions.begin("") is None


async def test_of_two_sessions_in_one_request_none_counts() -> None:
    async with server() as sessions:
        ann, bob = await begun(sessions), await begun(sessions, BOB)
        assert user(sessions, ann.id, bob.id) is None
        assert user(sessions, ann.id, "x" * 43) == "ann"
        assert user(sessions, ann.id, ann.id) == "ann"


async def test_without_a_token_file_there_is_none() -> None:
    async with server(users=Users()) as sessions:
        assert await sessions.begin("anything") is None
        sessions.check()


async def test_it_outlives_the_server_and_its_token_does_not_outlive_it(tmp_path: Path) -> None:
    async with server(tmp_path) as sessions:
        ann, bob = await begun(sessions), await begun(sessions, BOB)
    async with server(tmp_path) as sessions:
        assert (user(sessions, ann.id), user(sessions, bob.id)) == ("ann", "bob")
    changed = Users.parse(TOKENS.replace(ANN, "token-of-ann-54321"))
    async with server(tmp_path, changed) as sessions:
        assert (user(sessions, ann.id), user(sessions, bob.id)) == (None, "bob")
    renamed = Users.parse(TOKENS.replace("name=ann", "name=eve"))
    async with server(tmp_path, renamed) as sessions:
        assert user(sessions, ann.id) is None


async def test_the_file_has_neither_ids_nor_tokens(tmp_path: Path) -> None:
    async with server(tmp_path) as sessions:
        ann = await begun(sessions)
    kept = contents(tmp_path)
    assert b"ann" in kept
    assert ann.id.encode() not in kept
    assert ANN.encode() not in kept


async def test_a_token_that_is_gone_ends_it_for_good(tmp_path: Path) -> None:
    users = Users.parse(TOKENS)
    async with server(tmp_path, users) as sessions:
        ann, unused = await begun(sessions), await begun(sessions)
    async with server(tmp_path, users) as sessions:
        new = await begun(sessions)
        assert user(sessions, ann.id) == "ann"
        users.reload(f"{BOB} name=bob\ntoken-of-ann-54321 name=ann\n")
        sessions.check()
        users.reload(TOKENS)
        # Though the token is back:
        assert (user(sessions, ann.id), user(sessions, new.id)) == (None, None)
        # Of one that nobody has used in this life, the token is not known.
        assert user(sessions, unused.id) == "ann"
        users.reload(f"{BOB} name=bob\n")
        sessions.check()
        users.reload(TOKENS)
        assert user(sessions, unused.id) is None
        bob = await begun(sessions, BOB)
        assert await sessions._objects.read(every) == [bob.session]


async def test_what_is_over_is_removed_from_the_file(autojump_clock: trio.abc.Clock) -> None:
    users, clock = Users.parse(TOKENS), Clock()
    objects = MemoryObjects()
    sessions = Sessions(cast(KeptObjects, objects), users, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.run)
        ann, bob = await begun(sessions), await begun(sessions, BOB)
        await wait_all_tasks_blocked()
        assert {*await objects.read(every)} == {ann.session, bob.session}
        users.reload(f"{BOB} name=bob\n")
        assert user(sessions, ann.id) is None  # which is where it is noticed
        await wait_all_tasks_blocked()
        assert await objects.read(every) == [bob.session]
        clock.now += LIFE + 1
        await trio.sleep(3601)
        assert await objects.read(every) == []
        nursery.cancel_scope.cancel()


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_it_expires_unless_it_is_renewed(tmp_path: Path) -> None:
    clock = Clock()
    async with server(tmp_path, clock=clock) as sessions:
        one, other = await begun(sessions), await begun(sessions)
        clock.now += RENEWED - 1
        assert await sessions.renew(one) is one
        clock.now += LIFE - RENEWED - 10
        renewed = await sessions.renew(one)
        assert renewed.session.expires == int(clock.now) + LIFE
        clock.now += 12
        assert (user(sessions, one.id), user(sessions, other.id)) == ("ann", None)
        await begun(sessions, BOB)  # removes what has expired
        assert len(await sessions._objects.read(every)) == 2
    async with server(tmp_path, clock=clock) as sessions:
        assert user(sessions, one.id) == "ann"


async def test_one_that_cannot_be_renewed_lasts_as_long_as_before() -> None:
    clock, objects = Clock(), MemoryObjects()
    sessions = Sessions(cast(KeptObjects, objects), Users.parse(TOKENS), clock)
    await sessions.load()
    one = await begun(sessions)
    clock.now += RENEWED + 1
    objects.refusals.append(RequestError("the disk is full"))
    assert await sessions.renew(one) is one
    assert user(sessions, one.id) == "ann"
    assert (await sessions.renew(one)).session.expires > one.session.expires


async def test_one_that_has_ended_is_not_renewed() -> None:
    clock = Clock()
    async with server(clock=clock) as sessions:
        one = await begun(sessions)
        clock.now += RENEWED + 1
        await sessions.end("ann")
        assert await sessions.renew(one) is one
        assert user(sessions, one.id) is None


async def test_signing_out_here_or_everywhere(tmp_path: Path) -> None:
    async with server(tmp_path) as sessions:
        one, two, bob = await begun(sessions), await begun(sessions), await begun(sessions, BOB)
        assert await sessions.end("ann", [one.session.hash]) == 1
        assert await sessions.end("ann", [one.session.hash]) == 0
        assert await sessions.end("ann", [bob.session.hash]) == 0  # another's
        assert (user(sessions, one.id), user(sessions, two.id)) == (None, "ann")
        assert await sessions.end("ann") == 1
    async with server(tmp_path) as sessions:
        assert [user(sessions, x.id) for x in (one, two, bob)] == [None, None, "bob"]


async def test_a_browser_that_signs_in_again_has_one(tmp_path: Path) -> None:
    async with server(tmp_path) as sessions:
        first = await begun(sessions)
        second = await sessions.begin(BOB, first)
        assert second is not None
        assert (user(sessions, first.id), user(sessions, second.id)) == (None, "bob")
        assert len(await sessions._objects.read(every)) == 1


async def test_a_user_has_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    clock = Clock()
    async with server(tmp_path, clock=clock) as sessions:
        bob = await begun(sessions, BOB)
        made = []
        for _ in range(3):
            made.append(await begun(sessions))
            clock.now += RENEWED + 1
        await sessions.renew(made[0])  # now the second is the one that was unused for longest
        made.append(await begun(sessions))
        assert [user(sessions, one.id) for one in made] == ["ann", None, "ann", "ann"]
        assert user(sessions, bob.id) == "bob"
        assert len(await sessions._objects.read(every)) == 4


async def test_what_cannot_be_kept_does_not_begin(tmp_path: Path) -> None:
    async with server(tmp_path) as sessions:
        one = await begun(sessions)
        objects = sessions._objects._objects
        assert objects is not None
        await objects.aclose()
        with pytest.raises(RequestError):
            await sessions.begin(ANN)
        with pytest.raises(RequestError):
            await sessions.end("ann")
        assert user(sessions, one.id) == "ann"  # it would be back after a restart
        await objects.open()
        assert await sessions.end("ann") == 1


async def test_requests_wait_until_it_is_known_which_there_are(
    autojump_clock: trio.abc.Clock,
) -> None:
    sessions = Sessions(KeptObjects(None), Users.parse(TOKENS))
    async with trio.open_nursery() as nursery:
        done = trio.Event()

        async def wait() -> None:
            await sessions.ready()
            done.set()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not done.is_set()
        await sessions.load()
        await done.wait()


# -- several servers ------------------------------------------------------------------------------


class Shared(MemoryObjects):
    """Kept for several servers.

    Attributes:
        reads: how often it was asked.
    """

    shared = True
    reads = 0

    async def read(self, question: Callable[[Database], _T]) -> _T:
        self.reads += 1
        return await super().read(question)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Sessions, Sessions, Shared]]:
    """Two servers with one set of sessions; the second runs."""
    kept, clock = Shared(), Clock()
    one, two = (Sessions(cast(KeptObjects, kept), Users.parse(TOKENS), clock) for _ in range(2))
    async with trio.open_nursery() as nursery:
        await one.load()
        nursery.start_soon(two.run)
        await two.ready()
        yield one, two, kept
        nursery.cancel_scope.cancel()


async def test_one_that_began_at_another_server_is_known() -> None:
    async with pair() as (one, two, kept):
        begun_there = await begun(one)
        assert two.find([begun_there.id]) is None
        await two.ready([begun_there.id, "x" * 43])
        found = two.find([begun_there.id])
        assert found is not None
        assert (found.user.name, found.session) == ("ann", begun_there.session)
        before = kept.reads
        await two.ready([begun_there.id])
        assert kept.reads == before


async def test_one_that_ended_at_another_server_ends_here_when_that_is_heard() -> None:
    async with pair() as (one, two, _):
        first, second = await begun(one), await begun(one)
        await two.ready([first.id, second.id])
        ended: list[int] = []
        two.on_ended = lambda: ended.append(1)
        await one.end("ann", [first.session.hash])
        two.changed([first.session.hash, b"of no session"])
        await wait_all_tasks_blocked()
        assert two.find([first.id]) is None
        assert two.find([second.id]) is not None
        assert ended == [1]
        await two.ready([first.id])
        assert two.find([first.id]) is None
        await one.end("ann")
        two.changed(None)  # it is not known what
        await wait_all_tasks_blocked()
        assert two.find([second.id]) is None


async def test_a_store_that_does_not_answer_knows_nobody_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair() as (one, two, kept):
        made = await begun(one)

        async def refuse(question: object) -> NoReturn:
            raise StorageUnavailable("no", retry=True)

        monkeypatch.setattr(kept, "read", refuse)
        await two.ready([made.id])
        assert two.find([made.id]) is None
        monkeypatch.undo()
        await two.ready([made.id])
        assert two.find([made.id]) is not None


async def test_what_ended_elsewhere_ends_here_when_the_store_answers_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    async with pair() as (one, two, kept):
        made = await begun(one)
        await two.ready([made.id])
        await one.end("ann")

        async def refuse(question: object) -> NoReturn:
            raise StorageUnavailable("no", retry=True)

        monkeypatch.setattr(kept, "read", refuse)
        two.changed([made.session.hash])
        await trio.sleep(60)
        assert two.find([made.id]) is not None
        monkeypatch.undo()
        await trio.sleep(60)
        assert two.find([made.id]) is None
