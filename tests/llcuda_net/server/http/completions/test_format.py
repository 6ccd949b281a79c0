"""Answers to completions: whole, and as events that are the same however they are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.completions.format import CompletionFormat
from tests.support.generations import GENERATION, generation_of

ID = b"g:1"
PIECES = ["Once", " upon", "", " a", " tïme"]
LOGPROBS = [
    [[i, piece.encode(), -0.5, [[i, piece.encode(), -0.5], [9, b"x", -2.0]]]]
    for i, piece in enumerate(PIECES)
]


def _data(event: bytes) -> Any:
    before, after = f"id: {ID.decode()}\ndata: ".encode(), b"\n\n"
    assert event.startswith(before)
    assert event.endswith(after)
    return json.loads(event[len(before) : -len(after)])


def _events(form: CompletionFormat, generation: Generation, index: int = 0) -> list[Any]:
    writer = form.writer(generation, index, generation, None)
    assert writer.begin() == b""
    events = [_data(writer.at(i, ID)) for i in range(generation.count)]
    return [*events, _data(writer.last(ID))]


def test_an_event_has_openais_members() -> None:
    (first, *_, last) = _events(CompletionFormat("tiny"), generation_of(["Hi"], reason="length"))
    assert first == {
        "id": f"cmpl-{GENERATION}",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "tiny",
        "system_fingerprint": None,
        "choices": [{"text": "Hi", "index": 0, "logprobs": None, "finish_reason": None}],
    }
    assert last["choices"] == [
        {"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}
    ]
    assert last["llcuda"]["generation"] == GENERATION


@pytest.mark.parametrize("pieces", [PIECES, []])
@pytest.mark.parametrize("echo", [[], ["Tell: "]])
def test_the_events_and_the_whole_have_the_same_text(pieces: list[str], echo: list[str]) -> None:
    form = CompletionFormat("tiny", echo=echo)
    generation = generation_of(pieces)
    (choice,) = json.loads(form.whole([generation]))["choices"]
    assert choice["text"] == "".join([*echo, *pieces])
    streamed = [one["choices"][0]["text"] for one in _events(form, generation)]
    assert "".join(streamed) == choice["text"]


def test_each_prompt_stands_before_all_of_its_choices() -> None:
    form = CompletionFormat("tiny", n=2, echo=["A:", "B:"])
    generations = [generation_of([letter]) for letter in "abcd"]
    whole = json.loads(form.whole(generations))
    assert [one["text"] for one in whole["choices"]] == ["A:a", "A:b", "B:c", "B:d"]
    assert [one["index"] for one in whole["choices"]] == [0, 1, 2, 3]
    assert _events(form, generations[2], 2)[0]["choices"][0]["text"] == "B:c"


def test_each_prompt_is_counted_once() -> None:
    form = CompletionFormat("tiny", n=2, usage=True)
    generations = [
        generation_of(["x"], usage={"prompt_tokens": p, "completion_tokens": 3, "cached_tokens": 1})
        for p in (5, 5, 7, 7)
    ]
    used = json.loads(form.whole(generations))["usage"]
    assert used["prompt_tokens"] == 12
    assert used["completion_tokens"] == 12
    assert used["total_tokens"] == 24
    assert used["prompt_tokens_details"] == {"cached_tokens": 2}
    total = form.total(generations)
    assert total is not None
    assert json.loads(total)["usage"] == used
    assert json.loads(total)["choices"] == []
    assert _events(form, generations[0])[0]["usage"] is None
    assert CompletionFormat("tiny").total(generations) is None


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=12))
def test_an_event_depends_on_its_position_alone(order: list[int]) -> None:
    form = CompletionFormat("tiny", logprobs=1)
    generation = generation_of(PIECES, logprobs=LOGPROBS)

    def fresh(position: int) -> bytes:
        return form.writer(generation, 0, generation, None).at(position, ID)

    writer = form.writer(generation, 0, generation, None)
    assert [writer.at(i, ID) for i in order] == [fresh(i) for i in order]


def test_logprobs_are_of_the_older_shape() -> None:
    form = CompletionFormat("tiny", logprobs=1)
    generation = generation_of(PIECES, logprobs=LOGPROBS)
    (choice,) = json.loads(form.whole([generation]))["choices"]
    assert choice["logprobs"] == {
        "tokens": PIECES,
        "token_logprobs": [-0.5] * 5,
        "top_logprobs": [{piece: -0.5} for piece in PIECES],
        "text_offset": [0, 4, 9, 9, 11],
    }
    streamed = [one["choices"][0]["logprobs"] for one in _events(form, generation)[:-1]]
    assert [one["text_offset"] for one in streamed] == [[0], [4], [9], [9], [11]]
    none = json.loads(CompletionFormat("tiny", logprobs=0).whole([generation]))
    assert none["choices"][0]["logprobs"]["top_logprobs"] is None
