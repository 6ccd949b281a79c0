"""An upstream that makes more tokens than n_predict: its slot is free when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from llcuda_net.upstream.interface import OnEvents
from tests.support.server.failing_upstreams import begin, rest
from tests.support.server.memory_server import serving
from tests.support.upstream.scripted_upstream import ANSWER, Talker, backends


class Overrunning(Talker):
    """Works on after its answer was cut off."""

    async def complete(  # type: ignore[override]  # other fakes note nothing
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> str | None:
        await super().complete(prompt, params, on_events, on_sent)
        self.working.add(params["id_slot"])
        return "the upstream made more tokens than n_predict: stopped at 3"


async def test_its_slot_is_given_out_again_when_the_upstream_has_released_it(
    autojump_clock: object,
) -> None:
    a = Overrunning(slots=1)
    (one,) = found = backends(a, model="m")
    async with serving(found, watched=True) as (_, listener):
        peer, _ = await begin(listener, params={"n_predict": 3})
        text, _, done = await rest(peer)
        assert (text, done.reason) == (ANSWER[:3], "length")
        await trio.sleep(2)
        assert (one.releasing, one.free) == (1, 0)
        a.finish()
        await trio.sleep(2)
        assert (one.releasing, one.free) == (0, 1)
        assert (one.failures, one.state) == (0, "up")
