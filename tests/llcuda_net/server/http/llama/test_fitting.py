"""What is left out of a conversation that is too long: never more than needs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.llama.fitting import fitting, room


async def _words(messages: Sequence[dict[str, Any]]) -> int:
    return sum(len(message["content"].split()) for message in messages)


def test_room_is_left_for_the_answer() -> None:
    assert [room(1000, None), room(1000, 100), room(1000, 9000)] == [875, 900, 500]


@pytest.mark.parametrize(
    ("most", "left"),
    [
        (100, "s u1 a1 t1 u2 a2 u3"),
        (7, "s u1 a1 t1 u2 a2 u3"),
        (6, "s a1 t1 u2 a2 u3"),
        (5, "s u2 a2 u3"),
        (4, "s u2 a2 u3"),
        (3, "s a2 u3"),
        (2, "s u3"),
        (1, "s u3"),
    ],
)
async def test_the_oldest_goes_first(most: int, left: str) -> None:
    names = ["s", "u1", "a1", "t1", "u2", "a2", "u3"]
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    messages = [{"role": roles[name[0]], "content": name} for name in names]
    places = await fitting(messages, most, _words)
    assert " ".join(names[place] for place in places) == left


@given(
    st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), min_size=1, max_size=10),
    st.integers(0, 12),
)
async def test_whatever_there_is(roles: list[str], most: int) -> None:
    messages = [{"role": role, "content": "x"} for role in roles]
    places = await fitting(messages, most, _words)
    left = [messages[place] for place in places]
    assert places == sorted(set(places))
    assert len(messages) - 1 in places or roles[-1] == "system"
    assert [one for one in left if one["role"] == "system"] == [
        one for one in messages if one["role"] == "system"
    ]
    if len(messages) <= most:
        assert places == list(range(len(messages)))
