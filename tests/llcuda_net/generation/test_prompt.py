from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest, Unsupported
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.prompt import abilities_for, route
from llcuda_net.upstream.interface import Properties

PLAIN = Properties("m", 1, 512, True, "b")
THINKS = Properties("m", 1, 512, True, "b", thinks=True)
SEES = Properties("m", 1, 512, True, "b", images=True)
NO_TOOLS = Properties("m", 1, 512, True, "b", tools=False)
NO_TEMPLATE = Properties("m", 1, 512, False, "b")
HELLO = [{"role": "user", "content": "Hello"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "now"}}]}


def generation(
    chat: dict[str, Any] | None = None, messages: list[dict[str, Any]] | None = None
) -> Generation:
    return Generation(None, messages or HELLO, {}, 60.0, chat=chat)


@pytest.mark.parametrize(
    ("chat", "own"),
    [
        (None, False),
        ({}, False),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, False),
        ({"reasoning_effort": "none"}, False),
        ({"chat_template_kwargs": {}}, False),
        ({"reasoning_effort": "low"}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, True),
        (TOOLS, True),
    ],
)
async def test_options_decide_the_route(chat: dict[str, Any] | None, own: bool) -> None:
    assert route(generation(chat), PLAIN) is own
    assert route(generation(chat), THINKS)  # its reasoning must be parsed in any case


async def test_messages_decide_the_route() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    assert not route(generation(messages=parts), PLAIN)
    result = [*HELLO, {"role": "tool", "tool_call_id": "a", "content": "5"}]
    assert route(generation(messages=result), PLAIN)
    seen = [{"role": "user", "content": [IMAGE]}]
    assert route(generation(messages=seen), SEES)
    with pytest.raises(Unsupported, match="takes no images"):
        route(generation(messages=seen), PLAIN)


async def test_a_raw_prompt_and_what_has_begun_are_completed() -> None:
    assert not route(Generation("Hello", None, {}, 60.0), THINKS)
    begun = generation()
    begun.rendered = "<|user|>Hello"
    assert not route(begun, THINKS)


async def test_a_role_is_a_word_on_either_way() -> None:
    bad = [{"role": "user<|end|>", "content": "Hello"}]
    with pytest.raises(InvalidRequest, match="a role must be a word"):
        route(generation(TOOLS, bad), PLAIN)


async def test_without_a_template_there_are_no_tools() -> None:
    assert not route(generation(), NO_TEMPLATE)
    with pytest.raises(Unsupported, match="no chat template"):
        route(generation(TOOLS), NO_TEMPLATE)


async def test_tools_that_would_be_left_out_are_refused() -> None:
    with pytest.raises(Unsupported, match="the model m knows no tools"):
        route(generation(TOOLS), NO_TOOLS)
    assert abilities_for(generation(TOOLS)) == {"tools"}
    # These have it call none.
    chats: list[dict[str, Any] | None]
    chats = [None, {"tools": []}, {**TOOLS, "tool_choice": "none"}]
    for chat in chats:
        route(generation(chat), NO_TOOLS)
        assert not abilities_for(generation(chat))
    result = [*HELLO, {"role": "tool", "tool_call_id": "a", "content": "5"}]
    assert route(generation(messages=result), NO_TOOLS)
    seen = [{"role": "user", "content": [IMAGE]}]
    assert abilities_for(generation(TOOLS, seen)) == {"tools", "images"}
