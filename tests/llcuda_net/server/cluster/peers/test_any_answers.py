"""What this server makes of whatever another one answers: a refusal of that, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import llcuda_protocol as wire
from llcuda_net.client.channel import Channel
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.peers import asking
from llcuda_net.server.cluster.peers.connections import Connections, Place
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.cluster.peers.reading import PeerReader, StreamLostError
from llcuda_protocol.kinds import MAX_LISTED, Kind
from tests.support.cluster.any_document import BEGUN, DOCUMENTS, damaged
from tests.support.protocol.any_frame import FRAMES

ENCODED = DOCUMENTS.map(msgspec.msgpack.encode)
ANSWERS = st.one_of(
    st.builds(wire.Facts, st.just(1), ENCODED | damaged(DOCUMENTS), st.booleans()),
    *(FRAMES[kind] for kind in (Kind.ACCEPTED, Kind.TOKENS, Kind.CHANNEL, Kind.QUEUE)),
    *(FRAMES[kind] for kind in (Kind.DURABLE, Kind.DONE, Kind.ERROR, Kind.SPLICE)),
)
#: What is taken, before what may not be.
BEGINNINGS = BEGUN.map(lambda one: [wire.Facts(1, msgspec.msgpack.encode(one), False)])


class Answers:
    """A connection on which a request is answered with these frames, and then lost.

    Attributes:
        taken: how many were asked for.
    """

    def __init__(self, frames: Any) -> None:
        self.frames = frames

    async def open(self, channel: Channel) -> None:
        for frame in self.frames:
            channel.put(frame)
        channel.fail(lambda: ConnectError("lost"))

    def wake(self, generation: Followed) -> None:
        pass

    def flush(self) -> None:
        pass

    def pump(self) -> None:
        pass


@given(BEGINNINGS | st.just([]), st.lists(ANSWERS, max_size=6))
def test_whatever_is_answered_the_generation_is_whole_or_the_stream_lost(
    beginning: list[wire.Frame], rest: list[wire.Frame]
) -> None:
    async def read() -> None:
        answers = Answers(beginning + rest)
        followed = Followed(answers, "g1", "ann", 1)
        followed.join(answers)
        try:
            await PeerReader(followed, answers, 0.0).run()  # type: ignore[arg-type]
        except (StreamLostError, ConnectError, RequestError):
            assert not followed.ended
        else:
            assert followed.ended
        count = len(followed.pieces)
        assert len(followed.ids) == len(followed.counts) == count >= followed.visible
        assert followed.logprobs is None or len(followed.logprobs) == count

    trio.run(read)


@given(st.lists(FRAMES[Kind.LISTING], max_size=3))
def test_lists_have_what_this_version_knows(frames: list[wire.Frame]) -> None:
    async def ask() -> None:
        with pytest.raises(ConnectError, match="lost"):
            await asking.list_at(Answers(frames))  # type: ignore[arg-type]
        done = [*frames, wire.Done(1, "complete")]
        for entry in await asking.list_at(Answers(done)):  # type: ignore[arg-type]
            State(entry["state"])

    trio.run(ask)


async def test_an_answer_that_has_no_end_is_not_kept() -> None:
    entry = {"id": "g1", "state": "running", "created": 1.0}
    lists = [wire.Listing(1, [entry] * 100)] * (MAX_LISTED // 100 + 1)
    with pytest.raises(ConnectError, match="more than"):
        await asking.list_at(Answers(lists))  # type: ignore[arg-type]
    vectors = [wire.Vectors(1, number, [b"1234"]) for number in range(100)]
    with pytest.raises(ConnectError, match="3 vectors for 2 texts"):
        await asking.embed_at(Answers(vectors), ["a", "b"], None)  # type: ignore[arg-type]
    few = [*vectors[:1], wire.Done(1, "complete")]
    with pytest.raises(ConnectError, match="1 vectors for 2 texts"):
        await asking.embed_at(Answers(few), ["a", "b"], None)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["", "a:b:c", "http://host:1", "host:99999999"])
async def test_an_address_that_is_none_is_a_server_that_cannot_be_reached(
    address: str, nursery: trio.Nursery
) -> None:
    found = Connections(lambda: 1, b"secret", nursery, tls=False)
    with pytest.raises(ConnectError, match="cannot be reached"):
        await found.get(Place(7, address), "ann")
