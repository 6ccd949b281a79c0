"""Chunks of a chat as llama-server streams them: for parsers, and for scripted upstreams."""

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"
#: What a scripted upstream says of itself: its model calls tools, reasons, sees and hears.
PROPS: dict[str, Any] = {
    "total_slots": 2,
    "default_generation_settings": {"n_ctx": 4096},
    "model_alias": "scripted",
    "model_path": "",
    "build_info": "test",
    "chat_template": "{% if enable_thinking %}<think>{% endif %}",
    "modalities": {"vision": True, "audio": True},
}


def event(**chunk: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps({"object": "chat.completion.chunk", **chunk}).encode() + b"\n\n"


def chunk(
    predicted: int | None = None, finish: str | None = None, logprobs: Any = None, **delta: Any
) -> bytes:
    """A chunk with one choice.

    Args:
        predicted: tokens so far; None: it is not told.
        finish: why the answer ended.
        logprobs: of its tokens.
        delta: content, reasoning_content, tool_calls.
    """
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    more = {} if predicted is None else {"timings": {"predicted_n": predicted, "cache_n": 2}}
    return event(choices=[choice], model="scripted", **more)


def begin_call(index: int, name: str, arguments: str = "{", id_: str | None = "c") -> Any:
    """The `tool_calls` of a chunk in which a call begins."""
    function = {"name": name, "arguments": arguments}
    call = {"index": index, "type": "function", "id": id_ and f"{id_}{index}", "function": function}
    return [call]


def more_of(index: int, arguments: str) -> Any:
    """The `tool_calls` of a chunk in which a call goes on."""
    return [{"index": index, "function": {"arguments": arguments}}]


def usage(completion: int, prompt: int = 7) -> bytes:
    """The chunk behind the last one."""
    return event(choices=[], usage={"completion_tokens": completion, "prompt_tokens": prompt})


def answer(*parts: tuple[str, str], reason: str = "stop") -> list[bytes]:
    """All events of an answer, a token a word.

    Args:
        parts: what each is, and its text: "text", "reasoning", or the name of a tool that is called
            with these arguments.
    """
    found = [chunk(role="assistant", content=None)]
    tokens = calls = 0
    for kind, text in parts:
        words = [word + " " for word in text.split(" ")]
        words[-1] = words[-1][:-1]
        for place, word in enumerate(words):
            tokens += 1
            if kind == "text":
                found.append(chunk(tokens, content=word))
            elif kind == "reasoning":
                found.append(chunk(tokens, reasoning_content=word))
            elif place == 0:
                found.append(chunk(tokens, tool_calls=begin_call(calls, kind, word)))
            else:
                found.append(chunk(tokens, tool_calls=more_of(calls, word)))
        calls += kind not in ("text", "reasoning")
    found.append(chunk(tokens, "tool_calls" if calls and reason == "stop" else reason))
    return [*found, usage(tokens), DONE]
