"""The proxy campaign: disturbed connections change no answer, where clients reconnect."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.campaigns import conducted, long_enough
from tools import proxy_campaign
from tools.proxy import campaign, proxy
from tools.proxy.proxy import TROUBLES, Proxy, Timing


def test_two_seconds_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--peace", "1", "--rate", "100", "--clients", "10", "--seed", "3")

    def run(minutes: str) -> tuple[int, Any]:
        file = tmp_path / "json"
        return conducted(proxy_campaign.main, file, *options, "--minutes", minutes)

    def enough(found: Any) -> bool:
        return bool(found["counts"].get("stored")) and found["troubles"]["connections"] > 10

    code, found = long_enough(("0.04", "0.2", "1"), run, enough)
    assert code == 0, capsys.readouterr().out
    assert (found["violations"], found["clients"]) == ([], 10)
    assert found["troubles"]["connections"] > 10
    counts = found["counts"]
    assert counts["stored"] == counts["unaltered at the end"] == counts["found in the store"] > 0
    assert counts["splices"] == 0


async def test_it_notices_clients_that_do_not_reconnect(tmp_path: Path) -> None:
    plan = campaign.Plan(1, 20, clients=8, reconnect=0, timing=Timing(peace=0.2, stall=0.2))
    outcome = await campaign.run(plan, tmp_path, lambda text: None)
    assert outcome.violations


@asynccontextmanager
async def through(proxy: Proxy) -> AsyncIterator[trio.SocketStream]:
    """A connection through a proxy that is not refused."""
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            yield stream
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back what it gets."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                while data := await stream.receive_some():
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_in_peace_everything_goes_through_as_it_is() -> None:
    rng = random.Random(1)
    sent = rng.randbytes(1 << 18)
    came = bytearray()
    async with echo() as port, trio.open_nursery() as nursery:
        # A seed of which the first connection is not refused.
        peaceful = Proxy(port, random.Random(1), Timing(peace=1e9))
        async with through(peaceful) as stream:
            nursery.start_soon(stream.send_all, sent)
            while len(came) < len(sent):
                data = await stream.receive_some()
                assert data, "closed before its time"
                came += data
    assert bytes(came) == sent
    assert peaceful.counts["connections"] == 1
    assert peaceful.counts["bytes"] >= 2 * len(sent) - 4096


async def test_each_trouble_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for trouble in TROUBLES:
        monkeypatch.setattr(proxy, "TROUBLES", {trouble: 1})
        async with echo() as port:
            disturbed = Proxy(port, random.Random(1), Timing(peace=0.01, stall=0.01, slow=0.001))
            async with through(disturbed) as stream:
                silent = broken = ended = False
                with trio.fail_after(300):
                    try:
                        while not (silent or ended):
                            await stream.send_all(b"x")
                            if disturbed.counts[trouble] > 2:
                                break
                            with trio.move_on_after(0.5) as patience:
                                ended = not await stream.receive_some()
                            silent = patience.cancelled_caught
                    except trio.BrokenResourceError:
                        broken = True
        assert disturbed.counts[trouble]
        if trouble in ("reset", "close"):
            assert broken or ended
        elif trouble == "half-close":
            assert broken or ended or silent
        elif trouble == "stall-for-good":
            assert silent
