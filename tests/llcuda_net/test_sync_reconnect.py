"""The client without async, and generations that outlive a connection.

The server is a scripted one on loopback, which breaks connections when it is told to.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import llcuda_protocol as wire
from llcuda_net import sync
from llcuda_net.client.stream import Durable, Piece
from llcuda_net.errors import ConnectError, RequestError
from tests.support.client.attach_server import Lasting
from tests.support.client.scripted_server import listening

TEXT = "one two three four five"


@pytest.fixture
def lasting() -> Lasting:
    return Lasting(step=1)


@pytest.fixture
def address(lasting: Lasting) -> Iterator[str]:
    with listening(lasting.serve) as port:
        yield f"127.0.0.1:{port}"


def test_a_lost_connection_is_a_note(lasting: Lasting, address: str) -> None:
    lasting.drops = {2, 4}
    lasting.splices = [2]
    notes: list[str] = []
    with sync.connect(address, on_note=notes.append) as client:
        assert "attach" in client.features
        with client.generate(raw=TEXT, durable=True) as stream:
            assert (stream.level, stream.epoch, stream.cached) == ("disk", 0, False)
            events = list(stream.events())
        assert [e.text for e in events if isinstance(e, Piece)] == stream.text.replace(
            " ", "| "
        ).split("|")
        assert Durable(5) in events
        assert (stream.durable, stream.received, stream.result.splices) == (5, 5, [2])
        assert stream.text == TEXT
    assert notes == [
        "connection lost after 2 tokens; reconnecting",
        "resumed at token 2",
        "connection lost after 4 tokens; reconnecting",
        "resumed at token 4",
    ]


def test_reconnecting_can_be_switched_off(lasting: Lasting, address: str) -> None:
    lasting.drops = {2}
    with (
        sync.connect(address, reconnect=0) as client,
        pytest.raises(ConnectError, match="before the answer was complete"),
    ):
        client.complete(raw=TEXT)


def test_attach_detach_and_cancel(lasting: Lasting, address: str) -> None:
    with sync.connect(address) as client:
        with client.generate(raw="hold on") as stream:
            pieces = iter(stream)
            assert next(pieces) == "hold"
            assert stream.received == 1  # what was read, and not what was read ahead
            stream.detach()
            assert list(pieces) in ([" on"], [])  # whether it was under way
            assert stream.result.reason == "detached"
        with client.attach(stream.id, 1, tokens=True) as second:
            assert second.received == 1
            assert next(iter(second)) == " on"
        assert client.cancel(stream.id) == "cancelled"
        assert list(client.attach(stream.id)) == ["hold", " on"]
        result = client.complete(raw=TEXT)
        assert client.cancel(result.id or "") == "stop"
        with pytest.raises(RequestError, match="no such thing"):
            client.attach("never")
        with pytest.raises(RequestError, match="no such thing"):
            client.cancel("never")
    assert lasting.of(wire.Cancel)[:2] == [wire.Cancel(1, True), wire.Cancel(2, True)]


def test_a_conversation_goes_on_and_one_in_the_background_is_left(
    lasting: Lasting, address: str
) -> None:
    lasting.features = (*lasting.features, "channels", "previous")
    with sync.connect(address) as client:
        first = client.complete("hello")
        assert first.id is not None
        with client.generate("hold on", previous=f"resp_{first.id}", background=True) as stream:
            pass
    assert lasting.of(wire.Generate)[-1].previous == first.id
    assert lasting.logs[stream.id].reason == ""
    lasting.go_on("!", reason="stop")
    with sync.connect(address) as client:
        assert "".join(client.attach(stream.id)) == "hold on!"
