"""Long texts: cut, embedded in pieces, put together; and what an upstream refuses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.analysis.embeddings import LEAST_PIECE, MAX_TEXT, LongTexts, pieces
from llcuda_net.errors import ContextExceeded, RequestError


class Upstream:
    """Embeds a text as its length and one; refuses what is longer than `most`."""

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self.calls: list[Sequence[str | list[int]]] = []

    async def embed(self, texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        self.calls.append(texts)
        if any(len(text) > self.most for text in texts):
            raise ContextExceeded("too long")
        return [[[float(len(text)), 1.0]] for text in texts]


@given(st.text(alphabet="abc \n", max_size=400), st.integers(3, 50))
def test_pieces_are_short_and_lose_no_word(text: str, longest: int) -> None:
    found = pieces(text, longest)
    assert all(0 < len(piece) <= longest for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_pieces_are_cut_where_there_is_white_space() -> None:
    assert pieces("one two three four", 9) == ["one two", "three", "four"]
    assert pieces("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    assert pieces(" \n ", 10) == []
    assert sum(map(len, pieces("x" * (MAX_TEXT + 5), 1024))) == MAX_TEXT


async def test_a_long_text_is_the_mean_of_its_pieces_by_their_lengths() -> None:
    upstream = Upstream()
    texts = LongTexts(upstream.embed)
    texts.piece = 10
    found = await texts.vectors(["a" * 10 + " " + "b" * 4, "", "ccc"])
    assert found == [[(10 * 10 + 4 * 4) / 14, 1.0], [], [3.0, 1.0]]
    assert upstream.calls == [["a" * 10, "bbbb", "ccc"]]


async def test_short_texts_are_embedded_together_and_long_ones_alone() -> None:
    upstream = Upstream()
    sizes = [100, 200, 212, 1, 512, 511, 2]
    texts = ["x" * size for size in sizes]
    assert await LongTexts(upstream.embed).vectors(texts) == [[size, 1.0] for size in sizes]
    assert [[*map(len, call)] for call in upstream.calls] == [
        [100, 200, 212],
        [1],
        [512],
        [511],
        [2],
    ]


async def test_pieces_are_halved_until_they_are_taken_and_that_is_remembered() -> None:
    upstream = Upstream(most=300)
    texts = LongTexts(upstream.embed)
    await texts.vectors(["x" * 900])
    assert texts.piece == 256
    upstream.calls.clear()
    await texts.vectors(["x" * 900])
    found = [len(text) for call in upstream.calls for text in call]
    assert found == [256, 900 - 3 * 256]  # equal ones once


async def test_what_was_embedded_before_it_was_cut_off_is_not_asked_for_again() -> None:
    upstream = Upstream()
    enough = trio.Event()

    async def embed(found: list[str]) -> list[list[list[float]]]:
        if len(upstream.calls) == 2 and not enough.is_set():
            enough.set()
            await trio.sleep_forever()
        return await upstream.embed(found)

    texts = LongTexts(embed)
    one, two, three = "1" * 300, "2" * 300, "3" * 500  # too long to go together
    asked = [one, two, three, one]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(texts.vectors, asked)
        await enough.wait()
        nursery.cancel_scope.cancel()
    assert await texts.vectors(asked) == [[300.0, 1.0], [300.0, 1.0], [500.0, 1.0], [300.0, 1.0]]
    assert sorted(text for call in upstream.calls for text in call) == [one, two, three]
    await texts.vectors([one])  # and all is forgotten when it has been given
    assert len(upstream.calls) == 4


async def test_an_upstream_that_takes_nothing_is_given_up() -> None:
    texts = LongTexts(Upstream(most=0).embed)
    with pytest.raises(RequestError, match="too long"):
        await texts.vectors(["hello"])
    assert texts.piece == LEAST_PIECE


@pytest.mark.parametrize("rows", [[["x"]], [["x"], ["y"]], [[1.0], [1.0, 2.0]], [[None]]])
async def test_nonsense_in_place_of_vectors(rows: list[list[float]]) -> None:
    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        return [rows] * len(texts)

    with pytest.raises(RequestError, match="did not answer as a llama-server"):
        await LongTexts(embed).vectors(["a"])


async def test_rows_of_tokens_are_averaged() -> None:
    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        return [[[1.0, 0.0], [3.0, 4.0]] for _ in texts]

    assert await LongTexts(embed).vectors(["a"]) == [[2.0, 2.0]]
