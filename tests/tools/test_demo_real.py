"""What the demonstration on a real model takes for right, and what for wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from llcuda_net.client.events import Result
from llcuda_net.config import models
from llcuda_net.config.sizes import parse_size
from tools import demo_real


def _answer(*ids: int, splices: tuple[int, ...] = ()) -> Result:
    usage = {"completion_tokens": len(ids)}
    return Result("", "length", ids=list(ids), usage=usage, splices=list(splices))


def test_the_same_answer(capsys: pytest.CaptureFixture[str]) -> None:
    demo_real.compare(_answer(1, 2, 3, splices=(2,)), _answer(1, 2, 3))
    said = capsys.readouterr().out
    assert "3 tokens, from number 2 on by the one that took over" in said
    assert "the same answer, token for token" in said
    demo_real.compare(_answer(1, 2, 3), _answer(1, 2, 3))
    assert "all of which had been journalled" in capsys.readouterr().out


def test_another_word_behind_the_splice_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    demo_real.compare(_answer(1, 2, 9, splices=(1,)), _answer(1, 2, 3))
    assert "the same 2 tokens, then another word" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (_answer(1, 2, 2, 3, splices=(2,)), "4 tokens came, and 3 when nobody disturbed it"),
        (_answer(1, 9, 3, splices=(2,)), "token 1 is not the one"),
        (_answer(1, 2, 9), "token 2 is not the one"),
    ],
)
def test_what_does_not_hold_ends_it(
    cut: Result, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        demo_real.compare(cut, _answer(1, 2, 3))
    assert words in capsys.readouterr().err


class _Client:
    """Its answers have so many pieces."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    @contextmanager
    def generate(self, _: str, **__: Any) -> Iterator[Any]:
        yield _Stream(["x"] * self._pieces)


class _Stream(list[str]):
    result = SimpleNamespace(text="x")


def test_something_is_done_once_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []

    def disturb() -> None:
        done.append(1)

    client: Any = _Client(demo_real.KILL_AFTER + 1)
    demo_real.disturbed(client, disturb)
    assert done == [1]
    client = _Client(demo_real.KILL_AFTER)
    with pytest.raises(SystemExit):
        demo_real.disturbed(client, disturb)
    assert "too few to do anything in the middle" in capsys.readouterr().err


def test_there_is_memory_for_either_model_and_not_for_both() -> None:
    tables = tomllib.loads(demo_real.TABLES.format(smollm2='"a"', demo='"b"'))["model"]
    needs = [spec.memory or 0 for spec in models.parse(tables, "model")]
    budget = parse_size(demo_real.MEMORY)
    assert max(needs) <= budget < sum(needs)
