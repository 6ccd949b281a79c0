"""Figures of an answer, and which of its words are marked."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.analysis import certainty
from llcuda_net.analysis.certainty import (
    certainty_stats,
    least_certain,
    shown_stats,
    span_text,
    unknown_tokens,
)
from llcuda_net.storage.records import Logprobs, packed
from llcuda_net.storage.results.interface import CertaintyStats


def log(*pieces: list[list[Any]]) -> Logprobs:
    """The log-probabilities of pieces."""
    return [packed(piece) for piece in pieces]


def token(p: float, *others: float, text: bytes = b"x") -> list[Any]:
    """A token of this probability; the candidates are it and the others."""
    top = [[0, text, math.log(p)], *([n, b"y", math.log(q)] for n, q in enumerate(others, 1))]
    return [0, text, math.log(p), top]


@pytest.mark.parametrize("compiled", [True, False])
def test_figures(compiled: bool) -> None:
    sure, unsure = log([token(1.0)], [token(1.0)]), log([token(0.5, 0.5), token(0.25, 0.75)], [])
    empty = log([], [])
    found = certainty_stats([sure, empty, unsure], compiled=compiled)
    assert [one.tokens for one in found] == [2, 0, 2]
    assert found[0].mean_surprisal == pytest.approx(0, abs=1e-6)
    assert found[0].perplexity == pytest.approx(1)
    assert found[0].mean_entropy == pytest.approx(0, abs=1e-6)
    assert found[1] == CertaintyStats(0, None, None, None, (0, 0), None)
    assert found[2].mean_surprisal == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)
    assert found[2].perplexity == pytest.approx(math.sqrt(8), rel=1e-6)
    half = math.log(2)
    quarter = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert found[2].mean_entropy == pytest.approx((half + quarter) / 2, rel=1e-5)
    assert found[2].least_certain == (0, 2)
    assert certainty_stats([], compiled=compiled) == []


@pytest.mark.parametrize("compiled", [True, False])
def test_what_was_impossible_leaves_no_figure_that_is_not_a_number(compiled: bool) -> None:
    answer = log([[0, b"x", -3.4028235e38, [[1, b"y", 0.0], [2, b"z", -3.4028235e38]]]])
    (found,) = certainty_stats([answer], compiled=compiled)
    assert found.mean_surprisal is None
    assert found.perplexity is None
    assert found.mean_entropy == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_not_known_is_left_out_and_counted(compiled: bool) -> None:
    """A null of the upstream was taken for the logarithm of the smallest double, -744.44."""
    half = math.log(2)
    unknown = [0, b"x", None, [[0, b"x", None], [1, b"y", -half], [2, b"z", -half]]]
    answer = log([token(0.5, 0.5)], [unknown], [], [token(0.5, 0.5)])
    nothing = log([[0, b"x", None, []]], [[0, b"x", None, [[0, b"x", None]]]])
    found, empty = certainty_stats([answer, nothing], compiled=compiled)
    assert (found.tokens, found.unknown) == (2, 1)
    assert found.mean_surprisal == pytest.approx(half, rel=1e-6)
    assert found.mean_entropy == pytest.approx(half, rel=1e-6)
    assert found.least_certain == (0, 3)
    assert empty == CertaintyStats(0, None, None, None, (0, 0), None, 2)
    assert unknown_tokens(answer) == 1
    assert ("not known", "of 1 of 3 tokens, which are left out") in shown_stats(found)
    # It is not the least certain word, either.
    spans = least_certain(["sure ", "unknown ", "", "sure"], answer)
    assert spans == [(0, 4)]


def test_one_wide_row_among_many_narrow_ones_takes_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certainty, "_CELLS", 64)
    sizes: list[int] = []
    real = certainty._statistics

    def seen(lists: Any, chosen: Any, compiled: bool) -> Any:
        sizes.append(lists.size)
        return real(lists, chosen, compiled)

    monkeypatch.setattr(certainty, "_statistics", seen)
    wide = token(0.5, *[0.5 / 40] * 40)
    answer = log(*([wide if n == 50 else token(0.5, 0.5)] for n in range(100)))
    (found,) = certainty_stats([answer], compiled=False)
    assert found.tokens == 100
    assert max(sizes) <= 64
    assert found.mean_surprisal == pytest.approx(math.log(2), rel=1e-6)


def test_the_least_certain_span_is_the_worst_five_tokens() -> None:
    answer = log(*([token(0.9)] for _ in range(20)))
    for place in range(8, 13):
        answer[place] = packed([token(0.1)])
    (found,) = certainty_stats([answer], compiled=False)
    assert found.least_certain == (8, 13)
    assert found.span_surprisal == pytest.approx(math.log(10))
    pieces = [f"{n} " for n in range(20)]
    assert span_text(pieces, answer, found.least_certain) == "8 9 10 11 12 "
    # Two tokens a piece: the pieces that hold any of the span.
    assert span_text(["ab", "cd", "ef"], log(*[[token(1)] * 2] * 3), (1, 3)) == "abcd"


def test_the_least_certain_tenth_of_the_words_is_marked() -> None:
    pieces = ["One", " t", "wo", " three", ".", " four"]
    probabilities = [0.99, 0.95, 0.3, 0.99, 0.2, 0.99]
    logprobs = log(*([token(p)] for p in probabilities))
    text = "".join(pieces)
    spans = least_certain(pieces, logprobs)
    assert [text[a:b] for a, b in spans] == ["three."]  # one of four words: the worst


def test_more_words_more_marks_and_none_where_all_is_sure() -> None:
    pieces = [f"w{n} " for n in range(30)]
    logprobs = log(*([token(0.99)] for _ in pieces))
    assert least_certain(pieces, logprobs) == []
    for place in (3, 4, 20):
        logprobs[place] = packed([token(0.5)])
    text = "".join(pieces)
    assert [text[a:b] for a, b in least_certain(pieces, logprobs)] == ["w3", "w4", "w20"]
    logprobs[25] = packed([token(0.89)])  # a fourth is beyond the tenth
    assert len(least_certain(pieces, logprobs)) == 3


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab .\n\N{EARTH GLOBE EUROPE-AFRICA}", max_size=5),
            st.lists(st.floats(0.01, 1), max_size=2),
        ),
        max_size=30,
    )
)
def test_marks_are_whole_words_in_order(answer: list[tuple[str, list[float]]]) -> None:
    pieces = [text for text, _ in answer]
    logprobs = log(*([token(p) for p in ps] for _, ps in answer))
    text = "".join(pieces)
    spans = least_certain(pieces, logprobs)
    assert spans == sorted(spans)
    for first, behind in spans:
        assert text[first:behind].split() == [text[first:behind]]
        assert first == 0 or text[first - 1].isspace()
        assert behind == len(text) or text[behind].isspace()
    assert len(spans) <= math.ceil(len(text.split()) / 10)


def test_figures_for_people() -> None:
    found = CertaintyStats(3, 0.123456, 1.1314, None, (0, 3), 0.2)
    assert shown_stats(found) == [
        ("mean surprisal", "0.123 nats"),
        ("perplexity", "1.13"),
        ("mean entropy", "unknown"),
    ]
