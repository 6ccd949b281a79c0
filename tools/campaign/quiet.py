"""Checks after the last request: nobody holds a slot, and every slot is usable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import trio

from llcuda_net.client import Client
from llcuda_net.errors import LlcudaError
from tools.campaign.upstreams import Upstream

#: Seconds for everything to come to rest, and seconds without a change after which the state counts
#: as final: longer than the server avoids an upstream that failed.
QUIET = 40.0
STEADY = 16.0
#: Tokens of the generations that hold the slots while they are counted.
_LONG = 2000
_LOOK = 0.2


async def slots_left(upstreams: Sequence[Upstream]) -> list[str]:
    """Slots that are busy on the upstreams."""
    out = []
    for upstream in upstreams:
        try:
            rows = await upstream.slots()
        except (httpx.HTTPError, OSError, ValueError) as error:
            out.append(f"{upstream.name} does not report its slots: {error!r}")
            continue
        out += [
            f"slot {row['id']} of {upstream.name} is busy, with task {row.get('id_task')}"
            for row in rows
            if row["is_processing"]
        ]
    return out


def slots_held(report: dict[str, Any]) -> list[str]:
    """What the server still holds by its own report, and upstreams that it cannot use."""
    out = []
    requests = report.get("requests", {})
    for key in ("running", "queued"):
        if (count := requests.get(key)) != 0:
            out.append(f"the server says that {count} requests are {key}")
    for upstream in report.get("upstreams", ()):
        name = upstream.get("name") or upstream.get("url")
        for key in ("busy", "releasing", "foreign"):
            if (count := upstream.get(key)) != 0:
                out.append(f"the server says of {name}: {count} slots {key}")
        if (state := upstream.get("state")) != "up":
            out.append(f"the server says that {name} is {state}: {upstream.get('reason')}")
    return out


async def at_rest(
    client: Client, upstreams: Sequence[Upstream]
) -> tuple[dict[str, Any], list[str]]:
    """Wait until nothing is held any more: the server's status, and what is still held."""
    report: dict[str, Any] = {}
    found = await settled(lambda: slots_left(upstreams))

    async def held() -> list[str]:
        nonlocal report
        report = await client.status()
        return slots_held(report)

    found += await settled(held)
    return report, found


async def settled(look: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """Look until nothing is found, or nothing changes any more: what is found then."""
    until = trio.current_time() + QUIET
    steady, before = trio.current_time(), None
    while True:
        found = await look()
        now = trio.current_time()
        if found != before:
            steady, before = now, found
        if not found or now > until or now > steady + STEADY:
            return found
        await trio.sleep(_LOOK)


async def every_slot(client: Client, upstreams: Sequence[Upstream]) -> list[str]:
    """Check that one generation per slot can run at once; synthetic upstreams only."""
    total = sum([len(await upstream.slots()) for upstream in upstreams])
    found: list[str] = []

    async def hold(number: int) -> None:
        what = f"hold a slot, {number}"
        try:
            async with client.generate(raw=what, n_predict=_LONG, level="memory") as stream:
                async for _ in stream:
                    pass
        except LlcudaError as error:
            found.append(f"with nothing in trouble any more: {error}")

    async def look() -> list[str]:
        busy = sum([await upstream.busy() for upstream in upstreams])
        if busy == total or found:
            return []
        return [f"{total} generations run, in {busy} of {total} slots"]

    async with trio.open_nursery() as nursery:
        for number in range(total):
            nursery.start_soon(hold, number)
        missing = await settled(look)
        nursery.cancel_scope.cancel()
    return found + missing
