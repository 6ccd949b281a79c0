"""What is held once all is over is noticed, and is waited for."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from tools.campaign import quiet


def report(**changes: Any) -> dict[str, Any]:
    upstream = {"name": "a", "state": "up", "busy": 0, "releasing": 0, "foreign": 0, **changes}
    return {"requests": {"running": 0, "queued": 0}, "upstreams": [upstream]}


def test_what_the_server_holds_is_noticed() -> None:
    assert quiet.slots_held(report()) == []
    for wrong in ({"busy": 1}, {"releasing": 1}, {"foreign": 2}, {"state": "down"}, {"busy": None}):
        assert len(quiet.slots_held(report(**wrong))) == 1
    assert len(quiet.slots_held({"requests": {"running": 1, "queued": 0}})) == 1


async def test_what_settles_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    looks = iter([["busy"], ["busy"], []])

    async def look() -> list[str]:
        return next(looks)

    assert await quiet.settled(look) == []

    async def never() -> list[str]:
        return ["busy"]

    began = trio.current_time()
    assert await quiet.settled(never) == ["busy"]
    assert quiet.STEADY <= trio.current_time() - began < quiet.QUIET

    async def moving() -> list[str]:
        return [f"{trio.current_time()}"]

    began = trio.current_time()
    assert await quiet.settled(moving)
    assert quiet.QUIET <= trio.current_time() - began < quiet.QUIET + 1
