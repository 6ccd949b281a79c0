"""Which upstream is asked what needs no slot, and which one next where it fails."""

from __future__ import annotations

from typing import Any

import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import InvalidRequest, RequestError, UpstreamError, UpstreamUnavailable
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Requirement
from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import send


class Counter(FakeUpstream):
    """Counts how often it is asked, and fails if it has an error for that."""

    def __init__(self, error: RequestError | None = None) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    async def detokenize(self, ids: list[int]) -> str:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return "text"


def _backends(*upstreams: FakeUpstream, model: str = "one") -> list[Backend]:
    return [
        Backend(UpstreamSpec(f"fake://{n}", f"up-{n}", model=model), upstream)
        for n, upstream in enumerate(upstreams)
    ]


async def _ask(backends: list[Backend], model: str | None = None) -> tuple[int, Any]:
    async with serving(backends) as (_, listener):
        reply = await send(listener, "POST", "/detokenize", {"tokens": [1], "model": model})
        return reply.status, await reply.json()


def gone() -> RequestError:
    return UpstreamUnavailable("it is not there", retry=True)


async def test_another_one_of_the_model_is_asked_where_one_fails(autojump_clock: object) -> None:
    for error in (gone(), UpstreamError("it is broken")):
        bad, good = Counter(error), Counter()
        backends = _backends(bad, good)
        assert await _ask(backends) == (200, {"content": "text"})
        assert (bad.asked, good.asked) == (1, 1)
        # Its health check looks at once at one that cannot be reached.
        assert backends[0].attention.is_set() is isinstance(error, UpstreamUnavailable)


async def test_the_first_failure_is_told_where_all_fail(autojump_clock: object) -> None:
    status, answer = await _ask(_backends(Counter(gone()), Counter(UpstreamError("broken"))))
    assert (status, answer["error"]["message"]) == (503, "it is not there")


async def test_what_the_request_is_to_blame_for_is_asked_once(autojump_clock: object) -> None:
    one, two = Counter(InvalidRequest("no such token")), Counter()
    status, _ = await _ask(_backends(one, two))
    assert (status, one.asked, two.asked) == (400, 1, 0)


async def test_only_upstreams_of_the_model_are_asked(autojump_clock: object) -> None:
    small, large = Counter(gone()), Counter()
    backends = [
        *_backends(small),
        Backend(UpstreamSpec("fake://large", "large", model="large"), large),
    ]
    assert (await _ask(backends, "one"))[0] == 503
    assert (small.asked, large.asked) == (1, 0)
    assert (await _ask(backends, "large"))[0] == 200
    status, answer = await _ask(backends, "huge")
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )


async def test_a_model_that_only_embeds_has_tokens_too(autojump_clock: object) -> None:
    vectors = Counter()
    backends = [
        *_backends(Counter(gone())),
        Backend(
            UpstreamSpec("fake://v", "v", model="vectors", roles=frozenset({"embeddings"})), vectors
        ),
    ]
    assert (await _ask(backends, "vectors"))[0] == 200
    assert vectors.asked == 1


async def test_those_that_are_down_are_not_asked(autojump_clock: object) -> None:
    down, up = Counter(), Counter()
    backends = _backends(down, up)
    backends[0].watched = True
    backends[0].mark_down("it has left")
    assert (await _ask(backends))[0] == 200
    assert (down.asked, up.asked) == (0, 1)
    backends = _backends(Counter())
    backends[0].watched = True
    backends[0].mark_down("it has left")
    status, answer = await _ask(backends)
    assert (status, answer["error"]["code"]) == (503, "upstream_unavailable")
    assert "up-0: it has left" in answer["error"]["message"]


async def test_the_least_busy_one_is_asked_first(autojump_clock: object) -> None:
    busy, idle = Counter(), Counter()
    backends = _backends(busy, idle)
    async with serving(backends) as (server, listener):
        lease = server.pool.place(Requirement(""))
        assert lease is not None
        held = lease.backend.upstream
        await send(listener, "POST", "/detokenize", {"tokens": [1]})
        lease.release()
    asked = busy if busy.asked else idle
    assert asked is not held
