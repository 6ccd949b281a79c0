"""Failover with a journal: what was told is kept, and what is stored is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import wait_all_tasks_blocked

from llcuda_net.storage.records import Level
from llcuda_net.upstream.backend import Backend
from llcuda_protocol import Accepted, Attach, Done, ErrorCode
from tests.support.server.durable_server import keeping, stored
from tests.support.server.failing_upstreams import begin, pair, read, read_on, rest
from tests.support.server.memory_server import CREDIT, MemoryListener, Peer, ask, ready
from tests.support.upstream.scripted_upstream import ANSWER, PROMPT, Talker, backends, gone

LEVELS = pytest.mark.parametrize("level", [Level.PROCESS, Level.DISK, Level.STRICT])


def fresh() -> tuple[Talker, Talker, list[Backend]]:
    """The same upstreams as another server finds them."""
    return pair()


async def attach(listener: MemoryListener, begun: Accepted, so_far: str) -> Peer:
    peer = await ready(listener)
    request = Attach(
        1, begun.id, CREDIT, first=len(so_far), epoch=begun.epoch, tokens=True, splices=True
    )
    await peer.send(request)
    return peer


@LEVELS
@pytest.mark.parametrize("count", [0, 1, 6])
async def test_what_is_stored_is_whole(tmp_path: Path, level: Level, count: int) -> None:
    a, b, both = pair()
    async with keeping(tmp_path, both, level) as (_, listener):
        peer, begun = await begin(listener)
        a.release(count)
        so_far = await read(peer, count)
        await wait_all_tasks_blocked()
        a.die()
        b.release(100)
        text, splices, done = await rest(peer, so_far)
        assert (text, done.reason) == (ANSWER, "stop")
        assert splices == done.splices == ([count] if count else [])
    (result,) = stored(tmp_path)
    assert (result.id, result.state, result.text) == (begun.id, "done", ANSWER)
    assert result.upstream == "fake://b"
    assert [one.position for one in result.continuations] == done.splices
    assert result.usage["completion_tokens"] == len(ANSWER)
    assert list(result.log.ids) == [ord(letter) for letter in ANSWER]
    # Read again, it is the same.
    async with keeping(tmp_path, fresh()[2], level) as (_, listener):
        peer = await attach(listener, begun, "")
        assert isinstance(await peer.next(), Accepted)
        text, _, again = await rest(peer)
        assert (text, again.splices, again.usage) == (ANSWER, done.splices, done.usage)


@LEVELS
async def test_a_restart_behind_a_failover(tmp_path: Path, level: Level) -> None:
    a, b, both = pair()
    async with keeping(tmp_path, both, level) as (_, listener):
        peer, begun = await begin(listener)
        a.release(3)
        so_far = await read(peer, 3)
        await wait_all_tasks_blocked()
        a.die()
        b.release(2)
        so_far += await read_on(peer, so_far, 2)
        await wait_all_tasks_blocked()
    a, b, both = fresh()
    async with keeping(tmp_path, both, level) as (_, listener):
        peer = await attach(listener, begun, so_far)
        a.release(100)
        b.release(100)
        text, _, done = await rest(peer, so_far)
        assert (text, done.reason, done.splices) == (ANSWER, "stop", [3, 5])
    (result,) = stored(tmp_path)
    assert (result.text, [one.position for one in result.continuations]) == (ANSWER, [3, 5])


@LEVELS
async def test_a_failover_where_the_last_server_stopped(tmp_path: Path, level: Level) -> None:
    """Two reasons to go on before the same piece, and a third one behind."""
    a, _, both = pair()
    async with keeping(tmp_path, both, level) as (_, listener):
        peer, begun = await begin(listener)
        a.release(4)
        so_far = await read(peer, 4)
        await wait_all_tasks_blocked()
    a, b, both = fresh()
    a.fails = gone()  # at once
    async with keeping(tmp_path, both, level) as (_, listener):
        peer = await attach(listener, begun, so_far)
        begun = await peer.next()  # type: ignore[assignment]
        assert isinstance(begun, Accepted)
        b.release(1)
        so_far += await read_on(peer, so_far, 1)
        await wait_all_tasks_blocked()
        assert len(a.prompts) == 1
    a, b, both = fresh()
    async with keeping(tmp_path, both, level) as (_, listener):
        peer = await attach(listener, begun, so_far)
        a.release(100)
        text, _, done = await rest(peer, so_far)
        assert (text, done.reason, done.splices) == (ANSWER, "stop", [4, 5])
    (result,) = stored(tmp_path)
    assert (result.text, [one.position for one in result.continuations]) == (ANSWER, [4, 5])


@LEVELS
async def test_a_second_failure_before_anybody_was_asked(tmp_path: Path, level: Level) -> None:
    a, b, c = upstreams = Talker(), Talker(), Talker()
    a.paused = c.paused = True
    async with keeping(tmp_path, backends(*upstreams, model="m"), level) as (_, listener):
        peer, _ = await begin(listener)
        a.release(4)
        so_far = await read(peer, 4)
        b.die()
        a.die()
        c.release(100)
        text, splices, done = await rest(peer, so_far)
        assert (text, splices, done.splices) == (ANSWER, [4, 4], [4])
    (result,) = stored(tmp_path)
    assert [one.position for one in result.continuations] == [4]
    assert result.upstream == "fake://c"


@LEVELS
async def test_a_restart_while_it_waits_for_an_upstream(tmp_path: Path, level: Level) -> None:
    a, b, both = pair()
    async with keeping(tmp_path, both, level, watched=True) as (_, listener):
        peer, begun = await begin(listener)
        a.release(3)
        so_far = await read(peer, 3)
        await wait_all_tasks_blocked()
        b.die()
        a.die()
        await wait_all_tasks_blocked()
    a, b, both = fresh()
    async with keeping(tmp_path, both, level) as (_, listener):
        peer = await attach(listener, begun, so_far)
        a.release(100)
        b.release(100)
        text, _, done = await rest(peer, so_far)
        assert (text, done.reason, set(done.splices)) == (ANSWER, "stop", {3})


@LEVELS
async def test_what_says_something_else_is_stored_as_far_as_it_came(
    tmp_path: Path, level: Level
) -> None:
    a, b, both = pair()
    b.text = b.text.replace("one", "won")
    async with keeping(tmp_path, both, level) as (_, listener):
        peer, begun = await begin(listener, params={"grammar": "root ::= [a-z]*"})
        a.release(5)
        so_far = await read(peer, 5)
        a.die()
        b.release(100)
        text, _, error = await rest(peer, so_far)
        assert (text, error.code) == (ANSWER[:5], ErrorCode.INTERRUPTED)
    (result,) = stored(tmp_path)
    assert (result.id, result.state, result.text) == (begun.id, "interrupted", ANSWER[:5])


async def test_a_stored_answer_is_of_the_model_whoever_made_it(tmp_path: Path) -> None:
    """What one upstream said answers for another one of the same model, and not for others."""
    a, b = Talker(), Talker()
    async with keeping(tmp_path, backends(a, b, model="m")) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(PROMPT, params={"temperature": 0}))
        await peer.until(Done)
        a.die()
        await peer.send(ask(PROMPT, 3, params={"temperature": 0}, cache=True))
        _, begun = await peer.until(Accepted, 3)
        assert begun.cached
        pieces, _ = await peer.until(Done, 3)
        assert "".join(pieces) == ANSWER
        assert b.prompts == []
