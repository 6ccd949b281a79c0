"""Two upstreams that fail when told to, and a reader who sees that nothing is doubled or lost."""

from __future__ import annotations

from typing import Any

from llcuda_net.upstream.backend import Backend
from llcuda_protocol import (
    Accepted,
    Done,
    Error,
    Splice,
    Tokens,
)
from tests.support.server.memory_server import MemoryListener, Peer, ask, ready
from tests.support.upstream.scripted_upstream import PROMPT, Talker, backends


def pair(**spec: Any) -> tuple[Talker, Talker, list[Backend]]:
    """Two upstreams of one model that are moved by the test; a gets the first request."""
    a, b = Talker(), Talker()
    a.paused = b.paused = True
    return a, b, backends(a, b, model=spec.pop("model", "m"), **spec)


async def begin(listener: MemoryListener, **options: Any) -> tuple[Peer, Accepted]:
    peer = await ready(listener)
    await peer.send(ask(PROMPT, splices=True, tokens=True, **options))
    accepted = await peer.next()
    assert isinstance(accepted, Accepted)
    return peer, accepted


async def read(peer: Peer, count: int) -> str:
    """So many pieces."""
    text = ""
    while len(text) < count:
        event = await peer.next()
        if isinstance(event, Tokens):
            assert event.first == len(text)
            text += "".join(event.pieces)
    return text


async def rest(peer: Peer, so_far: str = "") -> tuple[str, list[int], Any]:
    """The whole text, where it was spliced, and the last frame; nothing doubled, nothing lost."""
    splices: list[int] = []
    ids = [ord(letter) for letter in so_far]
    while True:
        event = await peer.next()
        if isinstance(event, Tokens):
            assert event.first == len(so_far)
            assert not splices or splices[-1] <= event.first
            so_far += "".join(event.pieces)
            assert event.ids is not None
            ids += [i for i in event.ids if i is not None]
        elif isinstance(event, Splice):
            assert event.position == len(so_far)
            splices.append(event.position)
        elif isinstance(event, Done | Error):
            assert ids == [ord(letter) for letter in so_far]
            return so_far, splices, event


async def read_on(peer: Peer, so_far: str, count: int) -> str:
    text = ""
    while len(text) < count:
        event = await peer.next()
        if isinstance(event, Tokens):
            assert event.first == len(so_far) + len(text)
            text += "".join(event.pieces)
        elif isinstance(event, Splice):
            assert event.position == len(so_far) + len(text)
    return text
