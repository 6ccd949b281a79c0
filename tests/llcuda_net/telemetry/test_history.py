"""The last two minutes of a server: samples, times by phase, failovers."""

from __future__ import annotations

from typing import Any

import trio

from llcuda_net.config.token_file import Users
from llcuda_net.config.users import ANONYMOUS
from llcuda_net.server.gateway import Gateway
from llcuda_net.telemetry.history import SAMPLES
from tests.support.server.failing_upstreams import begin, pair, read, rest
from tests.support.server.memory_server import MemoryListener, ask, ready, serving
from tests.support.upstream.scripted_upstream import PROMPT, Talker, backends, gone


async def document(server: Gateway, *, history: bool = False) -> dict[str, Any]:
    return await server.status(ANONYMOUS, history=history)


async def samples(server: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await document(server, history=True))["history"]["samples"]
    return found


async def finish(listener: MemoryListener, text: str = PROMPT) -> None:
    peer = await ready(listener)
    await peer.send(ask(text, tokens=True))
    await rest(peer)


async def test_a_sample_of_each_second(autojump_clock: object) -> None:
    upstream = Talker(slots=1)
    upstream.paused = True
    async with serving(backends(upstream), watched=True) as (server, listener):
        await trio.sleep(1.5)
        peer, _ = await begin(listener)
        waiting = await ready(listener)
        await waiting.send(ask(PROMPT))
        upstream.release(3)
        await read(peer, 3)
        await trio.sleep(1)
        upstream.release(2)
        await trio.sleep(1)
        found = await samples(server)
        keys = ("tokens_per_second", "running", "queued", "busy", "slots", "first_token")
        assert [tuple(one[key] for key in keys) for one in found] == [
            (0.0, 0, 0, 0, 1, None),
            (3.0, 1, 1, 1, 1, None),
            (2.0, 1, 1, 1, 1, None),
        ]
        assert (await document(server))["sample"] == found[-1]
        assert "history" not in await document(server)


async def test_two_minutes_are_kept(autojump_clock: object) -> None:
    async with serving(backends(Talker())) as (server, _):
        assert (await document(server))["sample"] is None
        await trio.sleep(3 * SAMPLES)
        assert len(await samples(server)) == SAMPLES


async def test_what_ends_is_counted_once_and_in_no_second_too_many(autojump_clock: object) -> None:
    upstream = Talker()
    async with serving(backends(upstream)) as (server, listener):
        for _ in range(3):
            await finish(listener)
            await trio.sleep(0.7)
        await trio.sleep(1)
        made = sum(one["tokens_per_second"] for one in await samples(server))
        assert made == (await document(server))["tokens"] > 0


async def test_time_by_phase_since_the_start_and_lately(autojump_clock: object) -> None:
    upstream = Talker(slots=1)
    upstream.paused = True
    async with serving(backends(upstream)) as (server, listener):
        peer, _ = await begin(listener)
        await trio.sleep(4)
        upstream.paused = False
        upstream.release(1000)
        await rest(peer)
        await trio.sleep(0.5)
        phases = (await document(server))["phases"]
        assert phases["all"] == phases["recent"]  # also before the sample of this second
        assert phases["all"]["requests"] == 1
        assert phases["all"]["ms"]["first_token"] >= 4000
        assert phases["all"]["ms"]["total"] >= phases["all"]["ms"]["first_token"]
        await trio.sleep(2)
        firsts = [one["first_token"] for one in await samples(server) if one["first_token"]]
        assert len(firsts) == 1
        assert firsts[0] >= 4000
        await trio.sleep(2 * SAMPLES)
        phases = (await document(server))["phases"]
        assert (phases["all"]["requests"], phases["recent"]) == (1, {"requests": 0, "ms": {}})


async def test_failovers_and_changes(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both, watched=True) as (server, listener):
        await trio.sleep(2)
        peer, accepted = await begin(listener)
        a.release(2)
        text = await read(peer, 2)
        a.die(gone("it is gone"))
        b.paused = False
        b.release(1000)
        await trio.sleep(3)
        (running,) = (await document(server))["failovers"]
        await rest(peer, text)
        await trio.sleep(2)
        found = await document(server)
        (failover,) = found["failovers"]
        assert failover | {"at": running["at"]} == running
        assert abs(failover["at"] - running["at"]) < 60  # by the wall clock, that is not virtual
        assert (failover["generation"], failover["position"]) == (accepted.id, 2)
        assert failover["reason"].startswith("a: ")
        texts = [(one["upstream"], one["text"]) for one in found["changes"] if one["bad"]]
        assert ("a", "1 failover") in texts
        assert any(text.startswith("is down") for name, text in texts if name == "a")


async def test_failovers_are_seen_by_their_user_and_by_admins(autojump_clock: object) -> None:
    users = Users.parse("adm name=root role=admin\ntom name=tom\neve name=eve\n")
    a, b, both = pair()
    async with serving(both, watched=True, users=users) as (server, listener):
        peer = await ready(listener, "tom")
        await peer.send(ask(PROMPT))
        a.release(1)
        await read(peer, 1)
        a.die(gone("it is gone"))
        b.paused = False
        b.release(1000)
        await trio.sleep(2)
        seen = {}
        for name in ("root", "tom", "eve"):
            found = await server.status(users.named(name))
            seen[name] = len(found["failovers"]), found["admin"]
        assert seen == {"root": (1, True), "tom": (1, False), "eve": (0, False)}
