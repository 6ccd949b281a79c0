"""What a status request is answered with, of upstreams, models, users and the queue."""

from __future__ import annotations

from typing import Any

import trio

from llcuda_net.config.token_file import Users
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.telemetry.status import Rate
from llcuda_net.upstream.backend import Backend
from llcuda_protocol import Accepted, Report, Status
from tests.support.server.failing_upstreams import begin, pair, read
from tests.support.server.memory_server import MemoryListener, ask, ready, serving, status
from tests.support.upstream.scripted_upstream import PROMPT, Talker, backend, backends, gone

USERS = """\
adm name=root role=admin
tom name=tom weight=2
eve name=eve
"""


async def report(listener: MemoryListener, token: str) -> dict[str, Any]:
    peer = await ready(listener, token)
    await peer.send(Status(1))
    event = await peer.next()
    assert isinstance(event, Report)
    return event.report


async def test_each_upstream(autojump_clock: object) -> None:
    a, b = Talker(slots=2, context=1024), Talker(slots=1)
    a.paused = b.paused = True
    found = [
        backend(a, "a", model="big", weight=2.0),
        backend(b, "b", model="small", roles=frozenset(["completions"])),
    ]
    async with serving(found, watched=True) as (_, listener):
        b.die(gone("connection refused"))
        peer = await ready(listener)
        await peer.send(ask(PROMPT))
        await peer.until(Accepted)
        a.working.add(1)
        await trio.sleep(3)
        told = await status(listener)
        one, other = told["upstreams"]
        assert one.pop("slots_detail") == [
            {"id": 0, "state": "busy", "user": ""},
            {"id": 1, "state": "foreign", "user": ""},
        ]
        assert one == {
            "name": "a",
            "url": "fake://a",
            "state": "up",
            "ready": True,
            "reason": "",
            "model": "big",
            "slots": 2,
            "busy": 1,
            "foreign": 1,
            "releasing": 0,
            "kv_cache": "unknown",
            "context": 1024,
            "fingerprint": {"name": "fake", "build": "test"},
            "restarts": 0,
            "failures": 0,
            "failovers": 0,
            "weight": 2.0,
            "roles": ["completions", "embeddings"],
            "tokens_per_second": 0.0,
        }
        assert other["state"] in ("down", "probing")
        assert (other["ready"], other["reason"]) == (False, "connection refused")
        assert (other["context"], other["roles"]) == (None, ["completions"])
        assert [(m["name"], m["slots"], m["free"], m["default"]) for m in told["models"]] == [
            ("big", 2, 0, True),
            ("small", 0, 0, False),
        ]


async def test_how_fast_each_upstream_is(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both, watched=True) as (_, listener):
        first, _ = await begin(listener)
        second, _ = await begin(listener)
        await status(listener)  # from here on
        a.release(6)
        b.release(2)
        await read(first, 6)
        await read(second, 2)
        await trio.sleep(2)
        told = await status(listener)
        assert [one["tokens_per_second"] for one in told["upstreams"]] == [3.0, 1.0]
        assert told["tokens_per_second"] == 4.0
        assert "store" not in told


async def test_what_nobody_has_seen_has_no_figures(autojump_clock: object) -> None:
    upstream = Talker()
    upstream.away = gone()
    async with serving([backend(upstream)], watched=True) as (_, listener):
        await trio.sleep(1)
        (one,) = (await status(listener))["upstreams"]
        assert (one["slots"], one["model"], one["context"], one["ready"]) == (None, None, None, 0)


async def test_users_see_their_own_and_an_admin_all(autojump_clock: object) -> None:
    upstream = Talker(slots=1)
    upstream.paused = True
    users = Users.parse(USERS)
    async with serving(backends(upstream, model="m"), users=users) as (_, listener):
        for token in ("tom", "tom", "eve"):
            peer = await ready(listener, token)
            await peer.send(ask(PROMPT, priority="low"))
            await peer.until(Accepted)
        await trio.sleep(5)
        everything = await report(listener, "adm")
        assert [(u["name"], u["weight"], u["running"]) for u in everything["users"]] == [
            ("tom", 2.0, 1),
            ("eve", 1.0, 0),
        ]
        assert sorted(entry["user"] for entry in everything["queue"]) == ["eve", "tom"]
        assert everything["upstreams"][0]["slots_detail"][0]["user"] == "tom"
        assert everything["requests"]["queued"] == 2
        own = await report(listener, "eve")
        assert [u["name"] for u in own["users"]] == ["eve"]
        (waiting,) = own["queue"]
        assert waiting.pop("wait") is None or waiting["position"]
        assert waiting.pop("position") in (1, 2)
        assert waiting == {
            "user": "eve",
            "model": "m",
            "priority": "low",
            "waited": 5.0,
            "reason": "the only slot is in use",
        }
        assert own["upstreams"][0]["slots_detail"][0]["user"] == ""


async def test_a_rate_is_over_the_last_seconds(autojump_clock: object) -> None:
    rate = Rate()
    assert rate(100) == 0.0
    await trio.sleep(1)
    assert rate(150) == 50.0
    count = 150
    for _ in range(10):
        await trio.sleep(0.5)
        count += 5
        found = rate(count)
    assert found == 10.0
    await trio.sleep(100)
    rate(count)
    await trio.sleep(1)
    assert rate(count) == 0.0


async def test_what_takes_memory(autojump_clock: object) -> None:
    upstream = Talker()
    upstream.paused = True
    async with serving(backends(upstream), memory_limit=256 << 20) as (_, listener):
        await begin(listener)
        memory = (await status(listener))["memory"]
        assert memory["limit"] == 256 << 20
        assert 0 < memory["running"] < memory["running_limit"] < memory["limit"]
        assert (memory["refused"], memory["ended"]) == (0, 0)


async def test_slots_of_what_another_server_asks_are_not_counted(autojump_clock: object) -> None:
    found = [
        Backend(UpstreamSpec(f"http://{name}:1", name, model="m"), Talker(slots=slots))
        for name, slots in (("a", 2), ("b", 3))
    ]
    async with serving(found, watched=True) as (server, listener):
        await trio.sleep(2)
        server.pool.own([found[0].spec.place])
        await trio.sleep(2)
        told = (await status(listener))["upstreams"]
        assert [(one["state"], one["slots"]) for one in told] == [("up", 2), ("elsewhere", None)]
        assert [len(one["slots_detail"]) for one in told] == [2, 0]
        server._history.sample()
        assert server._history.samples()[-1]["slots"] == 2
