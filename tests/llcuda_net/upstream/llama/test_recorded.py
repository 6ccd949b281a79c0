"""Answers as real engines have sent them: what is read of them, and that it goes the short way.

tests/data/events/*.http are the bytes of one answer each, to three tokens at temperature 0: of a
llama-server (llama.cpp, build 11434, with SmolLM2-135M), and of the built-in engine with the
demonstration model, which sends much of a short answer with its head.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.chat_stream import ChatParser
from llcuda_net.upstream.llama.sse import EventResponse, ResponseParser

_FOLDER = Path(__file__).parents[3] / "data" / "events"
_PARSERS: dict[str, type[ResponseParser | ChatParser]] = {
    "completion": ResponseParser,
    "chat": ChatParser,
}
#: What was recorded: its tokens, and the tokens of its prompt.
RECORDED: dict[str, tuple[list[str], int]] = {
    "llama_server_completion": ([" a", " canvas", " of"], 3),
    "llama_server_chat": (["Hello", "!", " How"], 31),
    "engine_completion": ([",", ",", ","], 5),
    "engine_chat": (["H", "el", "lo"], 8),
}


def _reads(name: str) -> list[bytes]:
    """The head, and each chunk; the end comes with the last."""
    data = (_FOLDER / f"{name}.http").read_bytes()
    found, position = [], data.index(b"\r\n\r\n") + 4
    found.append(data[:position])
    while size := re.match(rb"([0-9a-f]+)\r\n", data[position:]):
        end = position + size.end() + int(size[1], 16) + 2
        found.append(data[position:end])
        position = end
    *others, last, end_ = found
    assert end_ == b"0\r\n\r\n"
    return [*others, last + end_]


def _read(name: str, reads: list[bytes]) -> tuple[list[CompletionEvent], int]:
    """The events, and how many reads went to the parser of HTTP."""
    slow = 0

    def parse(self: Any, body: bytes) -> None:
        nonlocal slow
        slow += 1
        on_body(self, body)

    on_body = EventResponse.on_body
    found: list[CompletionEvent] = []
    with patch.object(EventResponse, "on_body", parse):
        parser = _PARSERS[name.rpartition("_")[2]]()
        for data in reads:
            before = slow
            parser.feed(data)
            slow = min(slow, before + 1)
            found += parser.events
            parser.events = []
    assert parser.finished
    return found, slow


@pytest.mark.parametrize("name", RECORDED)
def test_what_it_says(name: str) -> None:
    texts, prompt = RECORDED[name]
    whole = (_FOLDER / f"{name}.http").read_bytes()
    events, _ = _read(name, [whole])
    *tokens, last = events
    assert [event.content for event in tokens] == texts
    assert [event.tokens_predicted for event in tokens] == [1, 2, 3]
    assert (last.stop, last.stop_type, last.tokens_predicted) == (True, "limit", 3)
    assert (last.content, last.tokens_evaluated) == ("", prompt)
    assert last.timings is not None
    assert last.timings.prompt_ms > 0
    assert events == _read(name, _reads(name))[0]
    assert events == _read(name, [whole[at : at + 1] for at in range(len(whole))])[0]


@pytest.mark.parametrize("name", RECORDED)
def test_all_but_the_first_and_the_last_go_the_short_way(name: str) -> None:
    head, first, *others, last = _reads(name)
    assert others
    together = _read(name, [head + first, *others, last])[1]
    assert (together, _read(name, [head, first, *others, last])[1]) == (2, 2)
    assert _read(name, [head, first, b"".join(others), last])[1] == 2
