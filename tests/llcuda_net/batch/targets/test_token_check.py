"""Counts of tokens beside those of a tokenizer."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.batch.targets.interface import Answer
from llcuda_net.batch.targets.token_check import KEPT, Sample, Sampled, check, shorter
from llcuda_net.errors import UpstreamError


async def words(text: str) -> int:
    await trio.lowlevel.checkpoint()
    return len(text.split())


@pytest.mark.parametrize(
    ("samples", "difference", "warns"),
    [
        ([Sample("a b c", 3, ended=False)] * 3, 0.0, False),
        ([Sample("a b c", 4, ended=True)] * 3, 0.0, False),  # the end has a token, and no text
        ([Sample("a b c", 4, ended=False)] * 3, -0.25, True),
        ([Sample("a b c d", 2, ended=True)] * 3, 1.0, True),  # pieces of two tokens, say
        ([Sample("a " * 100, 99, ended=False)], 1 / 99, False),
    ],
)
async def test_the_difference(samples: list[Sample], difference: float, warns: bool) -> None:
    found = await check(samples, "usage", words, "words")
    assert found.difference == pytest.approx(difference)
    assert (found.caution is not None) is warns
    assert found.as_dict()["answers"] == len(samples)


async def test_what_is_not_checked_says_why() -> None:
    async def broken(text: str) -> int:
        raise UpstreamError("it answered 404")

    one = [Sample("a", 1, ended=False)]
    for samples, count, why in (
        (one, None, "no tokenizer is at hand"),
        ([], words, "no answer had a text"),
        (one, broken, "its /tokenize: it answered 404"),
    ):
        found = await check(samples, "usage", count, "its /tokenize")
        assert (found.why, found.difference, found.caution) == (why, None, None)
        assert found.as_dict()["difference"] is None


def test_the_last_answers_are_kept() -> None:
    target = Sampled()
    for number in range(40):
        record = Record(number, 0.0, tokens=number)
        target.keep(record, Answer("" if number == 39 else "x", "stop"))
    assert [sample.tokens for sample in target.samples] == list(range(39 - KEPT, 39))


def test_answers_that_are_shorter_than_asked() -> None:
    def record(tokens: int, wanted: int | None = None, *, counted: bool = True) -> Record:
        found = Record(0, 0.0, outcome=Outcome.DONE, tokens=tokens, counted=counted)
        found.wanted_tokens = wanted
        return found

    assert shorter([record(10), record(10)], 10, natural=False) == []
    (line,) = shorter([record(10), record(4)], 10, natural=False)
    assert line.startswith("answers had 7.00 tokens on average, where 10.0 were asked for")
    (line,) = shorter([record(4)], 10, natural=True)
    assert "allowed" in line
    assert shorter([record(4, wanted=4)], 10, natural=False) == []
    assert shorter([record(4, counted=False)], 10, natural=False) == []  # pieces are no tokens
    assert shorter([], 10, natural=False) == []
