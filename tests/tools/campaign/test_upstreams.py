"""Upstreams are harmed and healed, and do not outlive the campaign."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.support.processes import PATIENCE
from tools.campaign.upstreams import REAL, SYNTHETIC, Upstream, running


async def test_an_upstream_is_harmed_and_healed(tmp_path: Path) -> None:
    options = ["--rate", "0", "--exit-on-eof"]
    async with running(1, SYNTHETIC, options, tmp_path) as (upstream,):
        assert await upstream.busy() == 0
        for kind in ("kill", "stop", "errors"):
            await upstream.harm(kind, "http:503")
            assert upstream.trouble == kind
            assert await answers(upstream) is False
            await upstream.heal()
            assert (upstream.trouble, await answers(upstream)) == ("", True)
        await upstream.harm("stop", "")
        pid = upstream.pid
    with pytest.raises(ProcessLookupError):  # though it was stopped
        os.kill(pid, 0)


async def test_a_real_engine_listens_on_its_port(tmp_path: Path) -> None:
    async with running(1, REAL, ["--slots", "2"], tmp_path) as (upstream,):
        assert len(await upstream.slots()) == 2
        await upstream.harm("kill", "")
        await upstream.heal()
        assert await upstream.busy() == 0
        pid = upstream.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def answers(upstream: Upstream) -> bool:
    """Whether a completion is answered; one that is stopped says nothing, however long."""
    body = b'{"prompt": "x", "n_predict": 1}'
    head = b"POST /completion HTTP/1.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    with trio.move_on_after(1 if upstream.trouble == "stop" else PATIENCE):
        try:
            async with await trio.open_tcp_stream("127.0.0.1", upstream.port) as stream:
                await stream.send_all(head % len(body) + body)
                return (await stream.receive_some(12)).endswith(b" 200")
        except OSError:
            return False
    return False
