"""Parts of a search as servers send them, and who may not ask for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.analysis.shards import Question
from llcuda_net.analysis.vector_index import Answer
from llcuda_net.config.users import User
from llcuda_net.errors import InvalidRequest
from llcuda_net.server.tcp.peers.parts import answered, asked, to_answer, to_ask
from llcuda_net.storage.results.buckets import ALL
from llcuda_protocol import Done, Error, Search
from llcuda_protocol.frames import encode
from llcuda_protocol.kinds import MIN_MAX_FRAME
from tests.support.server.memory_server import FakeUpstream, ready, serving

FLOATS = st.floats(width=32, allow_nan=False)
SEQS = st.integers(0, 2**53)


@given(
    st.lists(FLOATS, max_size=9),
    st.integers(0, ALL),
    st.sampled_from([None, "", "ann"]),
    st.sets(SEQS, max_size=9),
)
def test_a_question_arrives_as_it_is(
    vector: list[float], buckets: int, owner: str | None, gone: set[int]
) -> None:
    search = Search(1, "", 7, to_ask(Question(3, vector, 7, owner), buckets, gone))
    question, found, deleted = asked(search, User("root", admin=True))
    assert (question.space, question.k, question.owner) == (3, 7, owner)
    assert [*question.vector] == vector
    assert (found, set(deleted)) == (buckets, gone)


@given(st.lists(st.tuples(FLOATS, SEQS), max_size=20), st.integers(0, ALL))
def test_an_answer_arrives_as_it_is(best: list[tuple[float, int]], buckets: int) -> None:
    answer = Answer(best, buckets, 5)
    assert answered(to_answer(answer), 5) == answer


def test_the_largest_answer_fits_any_frame() -> None:
    best = [(float(np.float32(0.1)), 2**53)] * 1000
    frame = encode(
        Done(2**28, "complete", usage={"searched": 9}, peer=to_answer(Answer(best, ALL, 9)))
    )
    assert len(frame) < MIN_MAX_FRAME


@pytest.mark.parametrize(
    ("user", "owner", "may"),
    [
        (User("ann"), "ann", True),
        (User("ann"), "bob", False),
        (User("ann"), None, False),
        (User("root", admin=True), "bob", True),
        (User(admin=True), None, True),
    ],
)
def test_a_user_asks_for_what_they_may_see(user: User, owner: str | None, *, may: bool) -> None:
    search = Search(1, "", 7, to_ask(Question(3, [1.0], 7, owner), ALL, ()))
    if may:
        assert asked(search, user)[0].owner == owner
    else:
        with pytest.raises(InvalidRequest, match="others"):
            asked(search, user)


async def test_a_client_is_no_peer() -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        part = to_ask(Question(3, [1.0], 7, None), ALL, ())
        await peer.send(Search(1, "a text", 7, part))
        error = await peer.next()
        assert isinstance(error, Error)
        assert "leave it out" in error.message
