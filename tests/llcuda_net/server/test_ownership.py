"""Users are apart: nobody attaches to, cancels, replays or is answered with what is another's."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    ConnectionClosed,
    Done,
    Error,
    ErrorCode,
    Report,
    Status,
    Tokens,
)
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    Peer,
    ask,
    paused,
    ready,
    serving,
)


def three() -> Users:
    return Users.parse("A name=ann\nB name=bob\nR name=root role=admin\nN\n")


async def test_ones_own_are_reported_however_many_others_wait(autojump_clock: object) -> None:
    users = Users.parse("a name=ann\nb name=bob")
    async with serving(paused(), users=users, max_queue=500) as (_, listener):
        bob = await ready(listener, "b")
        await bob.send(*(ask("x", stream) for stream in range(1, 4)))
        ann = await ready(listener, "a")
        await ann.send(*(ask("x", stream, priority="high") for stream in range(1, 151)))
        await trio.sleep(1)  # until those who wait were told where they stand
        await bob.send(Status(9))
        _, event = await bob.until(Report, 9)
        assert [entry["position"] for entry in event.report["queue"]] == [151, 152]


async def accepted(peer: Peer, stream: int = 1) -> Accepted:
    _, found = await peer.until(Accepted, stream)
    assert isinstance(found, Accepted)
    return found


async def refused(peer: Peer, id_: str, stream: int = 1) -> Error:
    """Attach, in vain."""
    await peer.send(Attach(stream, id_, CREDIT))
    event = await peer.next()
    assert isinstance(event, Error), event
    assert event.code == ErrorCode.UNKNOWN_GENERATION
    return event


async def test_what_runs_is_read_and_cancelled_by_its_user_and_an_admin(
    autojump_clock: object,
) -> None:
    upstream = paused(slots=2)
    async with serving(upstream, users=three()) as (server, listener):
        ann = await ready(listener, "A")
        await ann.send(ask("a b c d"))
        begun = await accepted(ann)
        bob, nobody = await ready(listener, "B"), await ready(listener, "N")
        for other in (bob, nobody):
            error = await refused(other, begun.id)
            never = await refused(other, "x" * len(begun.id), 3)
            assert error.message.replace(begun.id, "") == never.message.replace("x" * 36, "")
            # Before the answer: a cancel goes with the attach that was refused.
            await other.send(Attach(5, begun.id, CREDIT), Cancel(5))
            _, error = await other.until(Error, 5)
            assert error.code == ErrorCode.UNKNOWN_GENERATION
        await wait_all_tasks_blocked()
        assert upstream.active == 1
        (running,) = server.registry
        assert len(running.readers) == 1
        again = await ready(listener, "A")
        await again.send(Attach(1, begun.id, CREDIT))
        assert (await accepted(again)).id == begun.id
        root = await ready(listener, "R")
        await root.send(Attach(1, begun.id, CREDIT))
        upstream.release(2)
        await accepted(root)
        await root.send(Cancel(1))
        _, done = await root.until(Done)
        assert done.reason == "cancelled"
        _, done = await ann.until(Done)
        assert done.reason == "cancelled"


@pytest.mark.parametrize("being_read", [False, True])
async def test_what_is_stored_is_its_users(tmp_path: Path, being_read: bool) -> None:
    async with keeping(tmp_path, FakeUpstream(), users=three()) as (_, listener):
        ann = await ready(listener, "A")
        await ann.send(ask("a b c"))
        id_ = (await accepted(ann)).id
        await ann.until(Done)
        if being_read:  # without credit for it: so it is there without asking the store
            await ann.send(Attach(3, id_, 0))
            await accepted(ann, 3)
        assert (id_ in listener.server.finder.replayed) is being_read
        bob = await ready(listener, "B")
        await refused(bob, id_)
        root = await ready(listener, "R")
        await root.send(Attach(1, id_, CREDIT))
        assert (await root.until(Done))[0] == ["a", " b", " c"]
        await refused(bob, id_, 3)
        persistence = listener.server._persistence
        found = [await persistence.find(id_, owner) for owner in ("bob", "", "ann", None)]
        assert [one is not None for one in found] == [False, False, True, True]
    assert [result.owner for result in stored(tmp_path)] == ["ann"]


async def test_a_generation_keeps_its_user_over_a_restart(tmp_path: Path) -> None:
    async with keeping(tmp_path, upstream := paused(), users=three()) as (_, listener):
        ann = await ready(listener, "A")
        await ann.send(ask("a b c d"))
        id_ = (await accepted(ann)).id
        upstream.release(1)
        await ann.until(Tokens)
    async with keeping(tmp_path, upstream := paused(), users=three()) as (_, listener):
        await refused(await ready(listener, "B"), id_)
        ann = await ready(listener, "A")
        await ann.send(Attach(1, id_, CREDIT))
        assert (await accepted(ann)).id == id_


async def test_a_key_is_its_users(autojump_clock: object) -> None:
    upstream = paused(slots=4)
    async with serving(upstream, users=three()) as (_, listener):
        ids = {}
        for number, token in enumerate("ABRN", 1):
            peer = await ready(listener, token)
            # Another request: with a key of one's own that would be a conflict.
            await peer.send(ask(f"words {number}", key="k"))
            ids[token] = (await accepted(peer)).id
        assert len(set(ids.values())) == 4
        for number, token in enumerate("ABRN", 1):
            peer = await ready(listener, token)
            await peer.send(ask(f"words {number}", key="k", fresh=True))
            assert (await accepted(peer)).id == ids[token]
        assert upstream.active == 4


async def test_a_key_that_is_done_is_its_users(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream, users=three()) as (_, listener):
        ids = []
        for token in "ABRAR":
            peer = await ready(listener, token)
            await peer.send(ask("a b", key="k"))
            ids.append((await accepted(peer)).id)
            await peer.until(Done)
    assert ids[3:] == [ids[0], ids[2]]
    assert len(set(ids)) == len(upstream.calls) == 3
    assert sorted(result.owner for result in stored(tmp_path)) == ["ann", "bob", "root"]


async def test_a_cached_answer_is_its_users(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream, users=three()) as (_, listener):
        cached = []
        for token in "ABRABR":
            peer = await ready(listener, token)
            await peer.send(ask("a b", cache=True, params={"temperature": 0}))
            cached.append((await accepted(peer)).cached)
            await peer.until(Done)
    assert cached == [False, False, False, True, True, True]
    assert len(upstream.calls) == 3


async def test_without_a_token_file_all_are_one(autojump_clock: object) -> None:
    async with serving(paused()) as (_, listener):
        one, other = await ready(listener), await ready(listener, "whatever")
        await one.send(ask("a b"))
        id_ = (await accepted(one)).id
        await other.send(Attach(1, id_, CREDIT))
        assert (await accepted(other)).id == id_


async def test_a_session_knows_its_user(autojump_clock: object) -> None:
    async with serving(FakeUpstream(), users=three()) as (server, listener):
        peers = [await ready(listener, token) for token in "ABN"]
        assert sorted(s.user.name for s in server.listener.sessions) == ["", "ann", "bob"]
        assert not any(s.user.admin for s in server.listener.sessions)
        assert len(peers) == 3


async def test_a_token_that_was_taken_away_ends_its_sessions(autojump_clock: object) -> None:
    async with serving(upstream := paused(), users=three()) as (server, listener):
        ann, bob, root = [await ready(listener, token) for token in "ABR"]
        late = listener.connect()
        await bob.send(ask("a b"))
        await accepted(bob)
        server.users.reload("A name=ann weight=2\nB2 name=bob\nR name=root\n")
        for session in tuple(server.listener.sessions):
            session.check_user()
        for peer in (bob, root):  # one may be somebody else by now, or less than before
            error = await peer.next()
            assert isinstance(error, Error)
            assert (error.stream, error.code) == (0, ErrorCode.UNAUTHORIZED)
            assert isinstance(await peer.next(), ConnectionClosed)
        await wait_all_tasks_blocked()
        (left,) = server.listener.sessions
        assert (left.user.name, left.user.weight) == ("ann", 2)
        await ann.send(Status(1))
        await ann.next()
        # What he asked for is still his.
        assert upstream.active == 1
        await late.greet("B2")
