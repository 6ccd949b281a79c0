"""The detector against the definition: the last tokens have a period, or they have none."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.util.repetition import LONGEST, WINDOW, RepetitionDetector


def shortest_block(tokens: list[int], longest: int, window: int) -> int | None:
    """By the definition."""
    if len(tokens) < window:
        return None
    last = tokens[-window:]
    for block in range(1, longest + 1):
        if all(last[i] == last[i - block] for i in range(block, window)):
            return block
    return None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_token_as_the_definition_says(data: st.DataObject) -> None:
    longest = data.draw(st.integers(1, 5))
    window = data.draw(st.integers(longest, 20))
    parts = st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(1, 12))
    tokens = [
        token for block, times in data.draw(st.lists(parts, max_size=6)) for token in block * times
    ]
    detector = RepetitionDetector(longest, window)
    for end, token in enumerate(tokens, 1):
        assert detector.add(token) == shortest_block(tokens[:end], longest, window)


def test_a_loop_is_noticed_at_the_token_that_completes_it() -> None:
    seeded = random.Random(5)
    for block in (1, 2, 63, 64):
        prefix = [f"begin {i}" for i in range(700)]
        loop = [f"{block} {seeded.random()}" for _ in range(block)]
        detector = RepetitionDetector()
        tokens = prefix + (loop * WINDOW)[:WINDOW]
        found = [detector.add(token) for token in tokens]
        assert found == [None] * (len(tokens) - 1) + [block]


def test_a_longer_block_and_text_that_only_resembles_itself_are_none() -> None:
    detector = RepetitionDetector()
    assert {detector.add(i % (LONGEST + 1)) for i in range(3000)} == {None}
    table = RepetitionDetector()
    rows = [("| row ", i, " | 0 | 0 | 0 |\n") for i in range(400)]
    assert {table.add(cell) for row in rows for cell in row} == {None}


def test_a_loop_that_was_left_is_forgotten() -> None:
    detector = RepetitionDetector()
    for _ in range(WINDOW):
        last = detector.add("a")
    assert last == 1
    assert detector.add("b") is None
    assert [detector.add("a") for _ in range(WINDOW)][-2:] == [None, 1]
