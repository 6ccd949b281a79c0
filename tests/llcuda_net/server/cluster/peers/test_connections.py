"""Connections to the other servers of a cluster."""

from __future__ import annotations

from typing import NoReturn

import pytest
import structlog
import trio

from llcuda_net.errors import ConnectError
from llcuda_net.server.cluster.peers import connections
from llcuda_net.server.cluster.peers.connections import SAID_AGAIN, Connections, Place

PLACE = Place(7, "10.0.0.7:9000")


async def test_that_a_server_cannot_be_reached_is_said_once_and_then_seldom(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(*_: object) -> trio.abc.Stream:
        raise ConnectError("nobody listens")

    monkeypatch.setattr(connections, "dial", dial)
    async with trio.open_nursery() as nursery:
        found = Connections(lambda: 1, b"secret", nursery, tls=False)

        async def attempts(seconds: float) -> list[int]:
            """One a second; which of them were said."""
            with structlog.testing.capture_logs() as lines:
                until = trio.current_time() + seconds
                while trio.current_time() < until:
                    with pytest.raises(ConnectError):
                        await found.get(PLACE, "ann")
                    await trio.sleep(1)
            return [one["attempts"] for one in lines if one["log_level"] == "info"]

        assert await attempts(SAID_AGAIN) == [1]
        assert await attempts(2 * SAID_AGAIN) == [11]
        assert len(await attempts(3600)) < 20
        # Another one is another matter.
        with structlog.testing.capture_logs() as lines, pytest.raises(ConnectError):
            await found.get(Place(8, "10.0.0.8:9000"), "ann")
        assert [one["number"] for one in lines if one["log_level"] == "info"] == [8]


class Silence:
    """Dials a machine that drops what is sent to it.

    Attributes:
        dialled: how often.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dialled = 0
        monkeypatch.setattr(connections, "dial", self._dial)

    async def _dial(self, *_args: object) -> NoReturn:
        self.dialled += 1
        await trio.sleep_forever()
        raise AssertionError


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Silence:
    return Silence(monkeypatch)


async def ask(found: Connections, user: str | None = "ann") -> None:
    with pytest.raises(ConnectError, match=r"10\.0\.0\.7:9000 cannot be reached"):
        await found.get(PLACE, user)


async def test_many_who_wait_for_a_server_that_is_silent_wait_once(
    silence: Silence, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    found = Connections(lambda: 1, b"secret", nursery, tls=False)
    async with trio.open_nursery() as readers:
        for _ in range(40):
            readers.start_soon(ask, found)
    assert silence.dialled == 1
    assert trio.current_time() < 5
    await ask(found)  # the next one tries again
    assert silence.dialled == 2


async def test_one_who_leaves_does_not_end_the_attempt_of_the_others(
    silence: Silence, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    found = Connections(lambda: 1, b"secret", nursery, tls=False)
    async with trio.open_nursery() as readers:
        with trio.move_on_after(1) as first:
            readers.start_soon(ask, found)
            await found.get(PLACE, "ann")
        assert first.cancelled_caught
    assert silence.dialled == 1
