"""An upstream takes no more for now (429, 503 with Retry-After): asked again, and not blamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from llcuda_net.errors import RequestError, UpstreamBusy, UpstreamNotReady
from llcuda_net.generation.dispatcher import MOST_FAILURES
from llcuda_net.upstream.interface import OnEvents
from llcuda_protocol import Accepted, Embed, Error, ErrorCode, Queue, Tokens, Vectors
from tests.support.server.failing_upstreams import begin, rest
from tests.support.server.memory_server import all_quiet, ask, ready, serving, status
from tests.support.upstream.scripted_upstream import ANSWER, PROMPT, Talker, backends, gone


def busy(seconds: float | None) -> RequestError:
    return UpstreamBusy("the upstream takes no more for now: full", retry=True, retry_after=seconds)


class Full(Talker):
    """Refuses so many requests, whatever they are, and notes when each came."""

    def __init__(self, times: int, seconds: float | None, *, slots: int = 2) -> None:
        super().__init__(slots=slots)
        self.times = times
        self.seconds = seconds
        self.came: list[float] = []

    def _refuse(self) -> None:
        self.came.append(trio.current_time())
        if self.times:
            self.times -= 1
            raise busy(self.seconds)

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        on_sent()  # the answer comes to a request that was sent
        self._refuse()
        await super().complete(prompt, params, on_events, on_sent)

    async def embed(self, texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        self._refuse()
        return await super().embed(texts)


async def test_it_is_asked_again_after_the_time_that_it_names(autojump_clock: object) -> None:
    a = Full(1, 7.0)
    (one,) = found = backends(a, model="m")
    async with serving(found, watched=True) as (server, listener):
        peer, _ = await begin(listener)
        text, splices, done = await rest(peer)
        assert (text, splices, done.reason, done.splices) == (ANSWER, [], "stop", [])
        first, again = a.came
        assert first + 7.0 <= again < first + 7.5
        assert (one.failures, one.failovers, one.state) == (0, 0, "up")
        assert (await status(listener))["requests"]["failovers"] == 0
        await all_quiet(server, a, listener)


async def test_meanwhile_the_slot_is_free_and_the_reader_is_told(autojump_clock: object) -> None:
    a = Full(1, 30.0, slots=1)
    (one,) = found = backends(a, model="m")
    async with serving(found, watched=True) as (_, listener):
        peer, _ = await begin(listener)
        while not a.came:  # noqa: ASYNC110 - in virtual time
            await trio.sleep(0.1)
        await trio.sleep(1)
        assert (one.free, one.busy, one.releasing) == (1, 0, 0)
        told: list[str] = []
        while isinstance(event := await peer.next(), Queue | Accepted):
            if isinstance(event, Queue):
                told.append(event.reason or "")
        assert told.count("a: no more for now") == 1  # and not each second again
        assert len(told) <= 3
        assert isinstance(event, Tokens)


async def test_another_one_that_could_take_it_now_is_first(autojump_clock: object) -> None:
    a, b = Full(1, 50.0), Talker()
    one, other = found = backends(a, b, model="m")
    async with serving(found, watched=True) as (_, listener):
        begun = trio.current_time()
        peer, _ = await begin(listener)
        assert (await rest(peer))[0] == ANSWER
        assert trio.current_time() < begun + 5
        assert (len(a.came), len(b.prompts)) == (1, 1)
        assert [one.failures, other.failures] == [0, 0]
        # And what comes next does not ask the first one before its time.
        peer, _ = await begin(listener)
        assert (await rest(peer))[0] == ANSWER
        assert (len(a.came), len(b.prompts)) == (1, 2)


async def test_of_two_that_are_busy_the_first_that_is_free_again(autojump_clock: object) -> None:
    a, b = Full(1, 50.0), Full(1, 5.0)
    async with serving(backends(a, b, model="m"), watched=True) as (_, listener):
        begun = trio.current_time()
        peer, _ = await begin(listener)
        assert (await rest(peer))[0] == ANSWER
        assert begun + 5 <= trio.current_time() < begun + 7
        assert (len(a.came), len(b.came)) == (1, 2)


@pytest.mark.parametrize("seconds", [None, 0.0, 3.0])
async def test_it_may_refuse_often(autojump_clock: object, seconds: float | None) -> None:
    """More often than upstreams may fail; without a time of its own, at growing intervals."""
    times = 3 * MOST_FAILURES
    a = Full(times, seconds)
    async with serving(backends(a, model="m"), watched=True) as (_, listener):
        peer, _ = await begin(listener)
        assert (await rest(peer))[0] == ANSWER
        assert len(a.came) == times + 1
        pauses = [after - before for before, after in zip(a.came, a.came[1:], strict=False)]
        assert min(pauses) > (0.74 if seconds is None else max(seconds, 0.1) - 0.01)
        assert max(pauses) < (25 if seconds is None else seconds + 1)
        if seconds is None:
            assert pauses[4] > 4 * pauses[0] / 1.7


async def test_the_requests_own_time_goes_on(autojump_clock: object) -> None:
    a = Full(10_000, 3.0)
    async with serving(backends(a, model="m"), watched=True) as (server, listener):
        peer, _ = await begin(listener, timeout=10.0)
        _, _, error = await rest(peer)
        assert error.code == ErrorCode.TIMEOUT
        assert len(a.came) == 4
        await all_quiet(server, a, listener)


async def test_what_loads_its_model_is_waited_for(autojump_clock: object) -> None:
    a = Talker()
    (one,) = found = backends(a, model="m")
    async with serving(found, watched=True) as (_, listener):
        await trio.sleep(1)
        a.away = UpstreamNotReady("the upstream is not ready: Loading model", retry=True)
        peer, _ = await begin(listener)
        await trio.sleep(20)
        assert one.state in ("down", "probing")
        a.back()
        assert (await rest(peer))[0] == ANSWER


async def test_what_loads_its_model_at_the_start_is_waited_for(autojump_clock: object) -> None:
    a = Talker()
    a.away = UpstreamNotReady("the upstream is not ready: Loading model", retry=True)
    async with serving(backends(a), watched=True) as (_, listener):
        peer, _ = await begin(listener)
        await trio.sleep(20)
        a.back()
        assert (await rest(peer))[0] == ANSWER
    # But not what nobody has ever seen.
    b = Talker()
    b.away = gone()
    async with serving(backends(b), watched=True) as (_, listener):
        await trio.sleep(1)
        peer = await ready(listener)
        await peer.send(ask(PROMPT))
        error = await peer.next()
        assert isinstance(error, Error)
        assert error.code == ErrorCode.UPSTREAM_UNAVAILABLE


@pytest.mark.parametrize("refusal", ["busy", "loading"])
async def test_texts_to_embed_wait_as_well(autojump_clock: object, refusal: str) -> None:
    a = Full(1, 7.0)
    async with serving(backends(a, model="m"), watched=True) as (_, listener):
        await trio.sleep(1)
        if refusal == "loading":
            a.times = 0
            a.away = UpstreamNotReady("the upstream is not ready: Loading model", retry=True)
        peer = await ready(listener)
        begun = trio.current_time()
        await peer.send(Embed(1, ["some text"]))
        if refusal == "loading":
            await trio.sleep(8)
            a.back()
        assert isinstance(await peer.next(), Vectors)
        assert trio.current_time() >= begun + 7
