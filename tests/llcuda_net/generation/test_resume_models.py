"""A server that is started again with several upstreams, whose models it must learn first."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from llcuda_net.generation import runner
from llcuda_net.server.gateway import Gateway
from llcuda_protocol import Accepted, Attach, Done, Error
from tests.support.server.durable_server import keeping
from tests.support.server.failing_upstreams import begin, pair, read, rest
from tests.support.server.memory_server import CREDIT, ready
from tests.support.upstream.scripted_upstream import ANSWER, Talker, backends


async def test_it_waits_until_it_is_known_which_models_the_upstreams_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several upstreams the models are known only when each has made a token."""
    monkeypatch.setattr(runner, "_RETRY", 0.01)
    a, _, both = pair()
    async with keeping(tmp_path, both) as (_, listener):
        peer, begun = await begin(listener)
        a.release(4)
        so_far = await read(peer, 4)
    c, d, others = pair(model=None)
    async with keeping(tmp_path, others) as (_, listener):
        peer = await ready(listener)
        await peer.send(
            Attach(1, begun.id, CREDIT, first=len(so_far), epoch=begun.epoch, tokens=True)
        )
        await peer.until(Accepted)
        await trio.sleep(0.1)
        for one in others:
            assert one.sign({token: -0.5 - token for token in range(20)})
        assert listener.server is not None
        listener.server.pool.update()
        c.release(100)
        d.release(100)
        text, _, done = await rest(peer, so_far)
    assert isinstance(done, Done)
    assert (text, done.reason) == (ANSWER, "stop")


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_it_waits_where_another_server_has_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    monkeypatch.setattr(runner, "_RETRY", 0.01)
    a, _, both = pair()
    async with keeping(tmp_path, both) as (_, listener):
        peer, begun = await begin(listener)
        a.release(4)
        so_far = await read(peer, 4)
    others = backends(Talker(model="other"), model="other")
    names = {"fake"} if elsewhere else set[str]()  # as the upstream itself calls it
    monkeypatch.setattr(Gateway, "elsewhere_models", names)
    async with keeping(tmp_path, others) as (_, listener):
        peer = await ready(listener)
        await peer.send(
            Attach(1, begun.id, CREDIT, first=len(so_far), epoch=begun.epoch, tokens=True)
        )
        await peer.until(Accepted)
        assert listener.server is not None
        if elsewhere:
            await trio.sleep(0.1)
            # It is among those that are handed over, and goes on if its model comes here first.
            assert [name for _, name in listener.server.hosting.without_upstream()] == ["fake"]
            c, _, back = pair()
            listener.server.pool.add(back[0])
            await listener.server.pool.properties(back[0])
            c.release(100)
        text, _, last = await rest(peer, so_far)
    assert isinstance(last, Done if elsewhere else Error)
    assert text == (ANSWER if elsewhere else ANSWER[:4])
