"""What clients make a server hold is bounded, whatever they do; the answers stay what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.settings import LEAST_MEMORY
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import ANONYMOUS
from llcuda_net.generation.memory.budget import DEFAULT, Bounds
from llcuda_net.server import memory_guard
from llcuda_net.server.memory_guard import limit_of
from llcuda_net.server.tcp.queries import _MOST_REPLIES
from llcuda_net.storage.records import unpacked
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.util import process_memory
from llcuda_protocol import (
    Accepted,
    Attach,
    Credit,
    Done,
    Error,
    ErrorCode,
    Generate,
    ListGenerations,
    Report,
    Status,
    Tokens,
)
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import (
    FakeUpstream,
    ask,
    paused,
    ready,
    serving,
    status,
)

PROMPT = "a b c d"
FOUR = ["a", " b", " c", " d"]
PROBS = {"n_probs": 20}


def bound(monkeypatch: pytest.MonkeyPatch, **bounds: int) -> None:
    """Other bounds than those that follow from the limit."""
    real = replace(Bounds.of(1 << 30), **bounds)
    monkeypatch.setattr(Bounds, "of", lambda limit: real)


async def test_finished_answers_that_nobody_reads_come_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was held as objects for as long as its stream was open."""
    bound(monkeypatch, finished=0)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        server = listener.server
        peer = await ready(listener)
        for number in range(1, 6):
            await peer.send(ask(PROMPT, number, credit=0, params=PROBS, tokens=True))
        while (await server.report(ANONYMOUS))["requests"]["done"] < 5:  # noqa: ASYNC110
            await trio.sleep(0.01)
        memory = (await status(listener))["memory"]
        assert (memory["running"], memory["finished"]) == (0, 0)
        assert (memory["dropped"], memory["read_again"]) == (5, 0)
        # Little by little: it is read again each time, and nothing is lost or doubled.
        found: list[Tokens] = []
        await peer.send(Credit(3, 1))
        while not isinstance(event := await peer.next(), Done):
            if isinstance(event, Tokens):
                assert event.stream == 3
                found.append(event)
                await peer.send(Credit(3, 2000))
        assert [piece for one in found for piece in one.pieces] == FOUR
        assert [one.first for one in found] == [0, 1]
        assert [id_ for one in found for id_ in one.ids or ()] == [0, 1, 2, 3]
        (kept,) = [r for r in stored(tmp_path) if r.id == event.id]
        tokens = [token for one in found for (token,) in one.logprobs or []]
        assert [(t.id, t.logprob, len(t.top)) for t in tokens] == [(n, None, 20) for n in range(4)]
        assert [unpacked(piece)[0][0] for piece in kept.log.logprobs or []] == [0, 1, 2, 3]
        assert (await status(listener))["memory"]["read_again"] == 2


async def test_what_is_read_from_the_store_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        ids = []
        peer = await ready(listener)
        for number in range(1, 7):
            await peer.send(ask(PROMPT, number, params=PROBS))
            ids.append((await peer.until(Done, number))[1].id)
        size = 4 * 1500 + 9000
        bound(monkeypatch, finished=2 * size)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        for number, id_ in enumerate(ids, 1):
            await peer.send(Attach(number, id_, 0))
            await peer.until(Accepted, number)
        memory = (await status(listener))["memory"]
        assert 0 < memory["finished"] <= 2 * size
        assert memory["dropped"] >= 3
        for number in range(1, 7):
            await peer.send(Credit(number, 1 << 20))
            assert (await peer.until(Done, number))[0] == FOUR


async def test_an_answer_in_memory_only_is_lost_to_who_does_not_read_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, finished=0)
    async with serving(FakeUpstream()) as (server, listener):
        slow, fast = await ready(listener), await ready(listener)
        await slow.send(ask(PROMPT, credit=0))
        _, error = await slow.until(Error)
        assert (error.code, "kept in memory only" in error.message) == (ErrorCode.OVERLOADED, True)
        await fast.send(ask(PROMPT))
        assert (await fast.until(Done))[0] == FOUR
        assert server.memory.report()["finished"] == 0


async def test_a_user_over_their_bound_is_refused_and_another_is_served(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, user=40_000, generation=30_000)
    upstream = paused(slots=4, context=4096)
    users = Users.parse("secret-a name=ann\nsecret-b name=bob\n", "tokens")
    async with serving(upstream, users=users) as (server, listener):
        ann, bob = await ready(listener, "secret-a"), await ready(listener, "secret-b")
        await ann.send(ask(PROMPT, 1, params={**PROBS, "n_predict": 1000}))
        _, error = await ann.until(Error, 1)
        assert (error.code, error.retry) == (ErrorCode.INVALID_REQUEST, False)
        assert "1000 tokens (n_predict) with 20 probabilities each (n_probs)" in error.message
        dear = {**PROBS, "n_predict": 20}
        await ann.send(ask(PROMPT, 2, params=dear))
        await ann.until(Accepted, 2)
        await ann.send(ask(PROMPT, 3, params=dear))
        _, error = await ann.until(Error, 3)
        assert (error.code, error.retry) == (ErrorCode.OVERLOADED, True)
        assert error.retry_after
        assert "your requests may take 40,000 bytes of memory" in error.message
        await bob.send(ask(PROMPT, 1, params=dear))
        await bob.until(Accepted, 1)
        upstream.release(8)
        assert (await ann.until(Done, 2))[0] == FOUR
        await ann.send(ask(PROMPT, 4, params=dear))
        await ann.until(Accepted, 4)
        assert server.memory.report()["refused"] == 1


async def test_long_prompts_that_wait_are_counted(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, user=500_000)
    async with serving(paused()) as (server, listener):
        peer = await ready(listener)
        for number in (1, 2, 3):
            await peer.send(ask("x " * 30_000, number))
        _, error = await peer.until(Error, 3)
        assert error.code == ErrorCode.OVERLOADED
        assert 2 * 3 * 60_000 < server.memory.report()["running"] <= 500_000


async def test_running_logs_that_grow_too_much_end_with_an_error(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, user=200_000)
    upstream = paused(slots=2)
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        ids = []
        for number in (1, 2):
            await peer.send(ask(PROMPT, number))
            ids.append((await peer.until(Accepted, number))[1].id)
        small, large = sorted(server.registry, key=lambda one: ids.index(one.id))
        small.extend([CompletionEvent("x" * 25_000)])
        large.extend([CompletionEvent("x" * 30_000)])
        await trio.sleep(2 * memory_guard.INTERVAL)
        _, error = await peer.until(Error, 2)
        assert error.code == ErrorCode.OVERLOADED
        assert "your requests may take 200,000 bytes" in error.message
        upstream.release(4)
        assert (await peer.until(Done, 1))[0][1:] == FOUR


async def test_near_the_limit_nothing_is_taken_until_there_is_room(
    autojump_clock: object,
) -> None:
    upstream = paused(slots=2)
    async with serving(upstream, memory_limit=LEAST_MEMORY) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("x " * 1_000_000, 1))
        await peer.until(Accepted, 1)
        server.memory.look(LEAST_MEMORY)
        await peer.send(ask(PROMPT, 2))
        _, error = await peer.until(Error, 2)
        assert (error.code, error.retry) == (ErrorCode.OVERLOADED, True)
        server.memory.look(LEAST_MEMORY // 2)
        await peer.send(ask(PROMPT, 3))
        await peer.until(Accepted, 3)


async def test_a_large_process_does_not_refuse_what_takes_little(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        server.memory.look(1 << 40)  # an index for the search, perhaps; clients hold nothing
        peer = await ready(listener)
        await peer.send(ask(PROMPT))
        assert (await peer.until(Done))[0] == FOUR


async def test_frames_that_do_not_come_whole_are_bounded(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, incoming=300_000)
    async with serving(FakeUpstream()) as (server, listener):
        halves = [await ready(listener) for _ in range(3)]
        data = halves[0].connection.send(Generate(1, 0, prompt="x" * 220_000))
        await halves[0].stream.send_all(data[:200_000])
        await wait_all_tasks_blocked()
        assert 180_000 < server.memory.report()["incoming"] < 200_000
        await halves[1].stream.send_all(data[:200_000])
        error = await halves[1].next()
        assert isinstance(error, Error)
        assert (error.stream, error.code, error.retry) == (0, "too_many_connections", True)
        # The first one goes on, and what it held is free again.
        await halves[0].stream.send_all(data[200_000:])
        await halves[0].until(Accepted)
        assert server.memory.report()["incoming"] == 0
        # A connection that is lost holds nothing.
        await halves[2].stream.send_all(data[:200_000])
        await wait_all_tasks_blocked()
        assert server.memory.report()["incoming"] > 180_000
        await halves[2].stream.aclose()
        await wait_all_tasks_blocked()
        assert server.memory.report()["incoming"] == 0


async def test_frames_of_one_user_that_do_not_come_whole_leave_room_for_another(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, incoming=400_000)
    users = Users.parse("secret-a name=ann\nsecret-b name=bob\n", "tokens")
    async with serving(FakeUpstream(), users=users) as (server, listener):
        ann = [await ready(listener, "secret-a") for _ in range(4)]
        data = ann[0].connection.send(Generate(1, 0, prompt="x" * 120_000))
        for peer in ann[:3]:  # 84 kB count of each
            await peer.stream.send_all(data[:100_000])
        await wait_all_tasks_blocked()
        await ann[3].stream.send_all(data[:100_000])
        error = await ann[3].next()
        assert isinstance(error, Error)
        assert error.code == "too_many_connections"
        assert "300,000 bytes of memory, yours together" in error.message
        bob = await ready(listener, "secret-b")
        await bob.stream.send_all(data[:100_000])
        await wait_all_tasks_blocked()
        assert server.memory.report()["incoming"] > 320_000
        await bob.stream.send_all(data[100_000:])
        bob.connection.send(Generate(1, 0, prompt=PROMPT))
        await bob.until(Accepted)


async def test_no_larger_frames_are_announced_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, incoming=400_000)
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        assert (await peer.greet()).max_frame == 300_000


async def test_what_clients_do_not_read_is_bounded_together(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Each buffer alone may hold 256 KiB."""
    bound(monkeypatch, unsent=100_000)
    text = "x" * 8000 + " " + " ".join("y" * 8000 for _ in range(40))
    async with serving(FakeUpstream(slots=20)) as (server, listener):
        peers = [listener.connect_unread() for _ in range(10)]
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(peer.greet)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(peer.send, ask(text))
        await trio.sleep(1)
        # To the bound, and then a little for each.
        assert 100_000 < server.memory.report()["unsent"] < 100_000 + 10 * (16_384 + 8100)
        for peer in peers:
            assert "".join((await peer.until(Done))[0]) == text
        assert server.memory.report()["unsent"] == 0


async def test_requests_for_reports_do_not_pile_up(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        most = 2 * _MOST_REPLIES
        await peer.send(*(Status(n) for n in range(1, 2 * most, 2)))
        found: list[Any] = [await peer.next() for _ in range(most)]
        refused = [one for one in found if isinstance(one, Error)]
        reports = [one for one in found if isinstance(one, Report)]
        assert len(reports) == _MOST_REPLIES + 1
        assert {(one.code, one.retry) for one in refused} == {(ErrorCode.OVERLOADED, True)}
        assert len(refused) + len(reports) == most


async def test_a_list_that_is_too_large_says_how_many_were_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(monkeypatch, reply=800)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        for number in range(1, 7):
            await peer.send(ask(PROMPT, number))
            await peer.until(Done, number)
        await peer.send(ListGenerations(7))
        listing = await peer.next()
        (_, done) = await peer.until(Done, 7)
        assert len(listing.entries) + done.usage["cut"] == 6  # type: ignore[union-attr]
        assert 0 < done.usage["cut"] < 6


async def test_replies_that_are_not_read_count(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, user=3_000_000)
    async with serving(FakeUpstream()) as (server, listener):
        entry = {"id": "x" * 36, "state": "done", "created": 1.0, "text": "word " * 200}

        async def many(*_: object, **__: object) -> tuple[list[dict[str, Any]], int]:
            return [entry] * 600, 0

        monkeypatch.setattr(server.queries, "list_generations", many)
        refused = 0
        unread = [listener.connect_unread() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for one in unread:
                nursery.start_soon(one.greet)
        for one in unread:
            await one.send(ListGenerations(1, limit=1000))
            await wait_all_tasks_blocked()
        held = server.memory.report()["running"]
        assert 2_000_000 < held <= 3_000_000  # one waits to be sent
        for one in unread:
            while not isinstance(event := await one.next(), Done | Error):
                pass
            refused += isinstance(event, Error)
        assert refused == 2
        assert server.memory.report()["running"] == 0


async def test_streams_that_read_again_have_a_bound(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, running=2 * 8192)
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(PROMPT))
        _, begun = await peer.until(Accepted)
        await peer.send(Attach(2, begun.id, 0))
        await peer.until(Accepted, 2)
        await peer.send(Attach(3, begun.id, 0))
        _, error = await peer.until(Error, 3)
        assert (error.code, error.retry) == (ErrorCode.OVERLOADED, True)


async def test_and_those_that_join_by_a_key(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    bound(monkeypatch, running=2 * 12_000)
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        for number in (1, 2):
            await peer.send(ask(PROMPT, number, key="k"))
            await peer.until(Accepted, number)
        await peer.send(ask(PROMPT, 3, key="k"))
        _, error = await peer.until(Error, 3)
        assert (error.code, error.retry) == (ErrorCode.OVERLOADED, True)


def test_the_limit_is_what_is_given_or_half_of_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for group, limit in ((None, DEFAULT), (1 << 32, 1 << 31), (100 << 20, LEAST_MEMORY)):
        monkeypatch.setattr(process_memory, "cgroup_limit", lambda group=group: group)
        assert limit_of(None) == limit
        assert limit_of(200 << 20) == 200 << 20
