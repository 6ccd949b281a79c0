"""An upstream fails, and the answer goes on: unseen, or with a splice that is told."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.generation.dispatcher import MOST_FAILURES
from llcuda_protocol import (
    Attach,
    Done,
    Splice,
    Tokens,
)
from tests.support.server.failing_upstreams import begin, pair, read, read_on, rest
from tests.support.server.memory_server import CREDIT, all_quiet, ask, ready, serving, status
from tests.support.upstream.scripted_upstream import ANSWER, PROMPT, gone


async def test_before_the_first_piece_nobody_sees_it(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, _ = await begin(listener)
        await wait_all_tasks_blocked()
        a.die()
        b.release(100)
        text, splices, done = await rest(peer)
        assert (text, splices, done.reason, done.splices) == (ANSWER, [], "stop", [])
        assert b.prompts == [PROMPT]
        assert [one.failovers for one in both] == [1, 0]
        assert (await status(listener))["requests"]["failovers"] == 1
        await all_quiet(server, b, listener)


@pytest.mark.parametrize("count", [1, 7, len(ANSWER) - 1, len(ANSWER)])
async def test_mid_stream_it_goes_on_from_the_ids_so_far(
    autojump_clock: object, count: int
) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, _ = await begin(listener)
        a.fails, a.fail_after = gone("it has gone"), count
        a.release(count)
        so_far = await read(peer, count)
        b.release(100)
        text, splices, done = await rest(peer, so_far)
        assert (text, done.reason, done.splices) == (ANSWER, "stop", [count])
        assert splices == [count]
        assert b.prompts == [[256, *PROMPT.encode(), *so_far.encode()]]
        assert done.usage["completion_tokens"] == len(ANSWER)
        await all_quiet(server, b, listener)


async def test_the_limit_of_tokens_counts_across_it(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (_, listener):
        peer, _ = await begin(listener, params={"n_predict": 9})
        a.release(4)
        so_far = await read(peer, 4)
        a.die()
        b.release(100)
        text, _, done = await rest(peer, so_far)
        assert (text, done.reason) == (ANSWER[:9], "length")
        assert b.calls[0]["n_predict"] == 5


async def test_again_and_again(autojump_clock: object) -> None:
    """As long as each makes a token, however many fail."""
    a, b, both = pair()
    async with serving(both) as (_, listener):
        peer, _ = await begin(listener)
        so_far = ""
        for n in range(2 * MOST_FAILURES):
            at_work = (a, b)[n % 2]
            at_work.release(1)
            so_far += await read_on(peer, so_far, 1)
            await wait_all_tasks_blocked()
            at_work.lose()
        a.release(100)
        text, _, done = await rest(peer, so_far)
        assert (text, done.reason) == (ANSWER, "stop")
        assert done.splices == list(range(1, 2 * MOST_FAILURES + 1))
        assert [one.failovers for one in both] == [MOST_FAILURES, MOST_FAILURES]


async def test_who_did_not_ask_for_splices_gets_none(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(PROMPT))
        a.release(3)
        await peer.until(Tokens)
        await wait_all_tasks_blocked()
        a.die()
        b.release(100)
        while not isinstance(event := await peer.next(), Done):
            assert not isinstance(event, Splice)
        assert event.splices == [3]


async def test_a_splice_comes_before_its_piece_however_slow_the_reader(
    autojump_clock: object,
) -> None:
    a, b, both = pair()
    async with serving(both) as (_, listener):
        peer, begun = await begin(listener)
        a.release(5)
        await wait_all_tasks_blocked()
        a.die()
        b.release(100)
        await wait_all_tasks_blocked()
        late = await ready(listener)
        await late.send(Attach(1, begun.id, CREDIT, tokens=True, splices=True))
        text, splices, _ = await rest(late)
        assert (text, splices) == (ANSWER, [5])
        # Who has what comes behind it is not told of it.
        later = await ready(listener)
        await later.send(Attach(1, begun.id, CREDIT, first=7, tokens=True, splices=True))
        text, splices, _ = await rest(later, ANSWER[:7])
        assert (text, splices) == (ANSWER, [])
        text, splices, _ = await rest(peer)
        assert (text, splices) == (ANSWER, [5])


@pytest.mark.parametrize(
    "params", [{"grammar": "root ::= [a-z ]*"}, {"mirostat": 2}, {"n_indent": 2}]
)
async def test_what_cannot_be_continued_is_run_again_unseen(
    autojump_clock: object, params: dict[str, Any]
) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, _ = await begin(listener, params=params)
        a.release(4)
        so_far = await read(peer, 4)
        a.die()
        b.release(100)
        text, splices, done = await rest(peer, so_far)
        assert (text, splices, done.reason) == (ANSWER, [4], "stop")
        assert done.usage["completion_tokens"] == len(ANSWER)
        # From the very beginning, and with the same seed.
        assert b.prompts == a.prompts
        assert b.calls[0]["seed"] == a.calls[0]["seed"]
        assert b.calls[0]["n_predict"] == a.calls[0]["n_predict"]
        # What a slot holds of a prompt was computed in other batches, and rounds differently.
        assert (b.calls[0]["cache_prompt"], "cache_prompt" in a.calls[0]) == (False, False)
        await all_quiet(server, b, listener)


async def test_all_readers_and_a_key_come_along(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, begun = await begin(listener, key="k")
        a.release(3)
        so_far = await read(peer, 3)
        b.away = gone()
        both[1].breaker.trip("gone")
        both[1].watched = True
        both[1].was_up = True
        both[0].watched = True
        a.die()
        await trio.sleep(0.5)
        other, joined = await begin(listener, key="k")
        assert joined.id == begun.id
        assert joined.position == 1
        b.back()
        both[1].breaker.record_success()
        server.pool.update()
        b.release(100)
        assert (await rest(peer, so_far))[:2] == (ANSWER, [3])
        assert (await rest(other))[:2] == (ANSWER, [3])
        assert len(b.prompts) == 1


async def test_an_upstream_with_less_context_lowers_the_limit_for_itself_only(
    autojump_clock: object,
) -> None:
    a, b, both = pair()
    async with serving(both, watched=True) as (_, listener):
        peer, _ = await begin(listener, params={"n_predict": 60})
        a.release(2)
        so_far = await read(peer, 2)
        b.die()
        await trio.sleep(2)
        b.back(context=40)
        await trio.sleep(5)
        a.die()
        b.release(1)
        so_far += await read_on(peer, so_far, 1)
        b.die()
        a.back()
        a.release(100)
        text, _, _ = await rest(peer, so_far)
        assert text == ANSWER
        assert [one.calls[-1]["n_predict"] for one in (b, a)] == [40 - 2, 60 - 3]
