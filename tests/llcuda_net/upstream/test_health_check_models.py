"""What the health check finds out of an upstream: its model, what it holds, what it is used for."""

from __future__ import annotations

import trio

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS, RERANK
from llcuda_net.errors import Unsupported
from llcuda_net.upstream.health_check import (
    INTERVAL,
)
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.prompts.prefix_cache import BLOCK, chain_of
from tests.support.upstream.scripted_upstream import Talker, broken, gone
from tests.support.upstream.watched import lease, until_up, watched


async def test_a_process_that_is_gone_holds_nothing(autojump_clock: object) -> None:
    text = "x" * BLOCK
    async with watched(Talker(slots=2)) as one:
        held = lease(one)
        held.done(text, None)
        held.release()
        assert one.table.best(chain_of(text)) == (held.slot, 1)
        one.record_failure(gone())
        await trio.sleep(0.75 * INTERVAL)  # it is looked at before that would be due
        assert one.state == "up"
        assert one.table.best(chain_of(text))[1] == 0  # type: ignore[index]


async def test_a_slot_that_was_probed_holds_the_probe(autojump_clock: object) -> None:
    text = "x" * BLOCK
    others: list[str] = []
    async with watched(Talker(slots=1), sign=lambda: bool(others)) as one:
        held = lease(one)
        held.done(text, None)
        held.release()
        others.append("another model")
        await trio.sleep(2 * INTERVAL)
        assert one.signature
        assert one.table.best(chain_of(text)) == (held.slot, 0)


async def test_it_is_called_what_it_was_called_while_it_is_not_there(
    autojump_clock: object,
) -> None:
    upstream = Talker(model="llama")
    async with watched(upstream) as one:
        upstream.die()
        one.record_failure(gone())
        assert upstream.properties is None
        assert one.model == "llama"
    async with watched(Talker(), model="mine") as one:
        assert one.model == "mine"


async def test_what_embeds_only_is_not_asked_for_tokens(autojump_clock: object) -> None:
    upstream = Talker()
    upstream.fails = broken("it completes nothing")
    roles = frozenset({"embeddings"})
    async with watched(upstream, sign=lambda: True, roles=roles) as one:
        one.record_failure(gone())
        await until_up(one)
        assert upstream.probes == 0


async def test_another_model_is_another_group(autojump_clock: object) -> None:
    upstream = Talker()
    async with watched(upstream, sign=lambda: True) as one:
        await trio.sleep(2 * INTERVAL)
        one.model_key = "model-1"
        upstream.die()
        one.record_failure(gone())
        upstream.back()
        await until_up(one)
        assert one.model_key == "model-1"
        upstream.die()
        one.record_failure(gone())
        upstream.logprobs = {n + 700: -1.0 for n in range(20)}
        upstream.back()
        await until_up(one)
        assert one.model_key == ""


async def test_one_that_ranks_documents_gives_no_embeddings(autojump_clock: object) -> None:
    upstream = Talker()
    upstream.ranks = True
    async with watched(upstream) as one:
        await trio.sleep(3)
        assert one.roles == {COMPLETIONS, RERANK}
        upstream.die()
        await trio.sleep(3)
        assert RERANK in one.roles  # while it is away
        upstream.ranks = False
        upstream.back()
        await until_up(one)
        assert one.roles == {COMPLETIONS, EMBEDDINGS}


async def test_one_that_was_started_for_embeddings_only_is_used_for_those(
    autojump_clock: object,
) -> None:
    upstream = Talker()
    upstream.refuses = Unsupported("it completes nothing")
    async with watched(upstream, sign=lambda: True) as one:
        await trio.sleep(3)
        assert (one.state, one.roles) == ("up", frozenset({EMBEDDINGS}))
        assert one.free == len(one.table)
        assert one.meets(Requirement(one.model_key, EMBEDDINGS))
        assert not one.meets(Requirement(one.model_key))
        upstream.die()
        await trio.sleep(3)
        upstream.refuses = None
        upstream.back()
        await until_up(one)
        assert one.roles == {COMPLETIONS, EMBEDDINGS}
