"""Delete: what the gateway says is what the client hears."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.errors import InvalidRequest, RequestError, UnknownGeneration
from llcuda_net.server.generations.generations import Generations
from llcuda_protocol import Cancel, Delete, Deleted, Error, Ping, Pong
from tests.support.server.memory_server import FakeUpstream, ready, serving

USERS = "secret-a name=ann\n"


@pytest.mark.parametrize(
    "error",
    [None, UnknownGeneration("there is none"), InvalidRequest("it still runs")],
    ids=["deleted", "unknown", "running"],
)
async def test_a_generation_is_deleted_for_its_user(
    error: RequestError | None, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    asked: list[tuple[str, str]] = []

    async def delete(self: Generations, id_: str, user: User, *, only_here: bool = False) -> None:
        await trio.sleep(1)
        asked.append((id_, user.name))
        if error is not None:
            raise error

    monkeypatch.setattr(Generations, "delete", delete, raising=False)
    async with serving(FakeUpstream(), users=Users.parse(USERS, "tokens")) as (_, listener):
        peer = await ready(listener, "secret-a")
        # It cannot be cancelled: by then it may have happened.
        await peer.send(Delete(1, "g1"), Cancel(1))
        event = await peer.next()
        assert asked == [("g1", "ann")]
        if error is None:
            assert event == Deleted(1, "g1")
        else:
            assert event == Error(1, error.code, error.message)
        await peer.send(Ping(b"p"))
        assert await peer.next() == Pong(b"p")
