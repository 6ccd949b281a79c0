"""Items as messages, merged for a model, and back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.responses import items
from llcuda_net.server.http.responses.answers import opened
from llcuda_net.server.http.responses.earlier import kept
from llcuda_net.server.http.responses.items import together
from llcuda_net.server.http.responses.transcript import items_of, merged, unmerged

IMAGE = "data:image/png;base64,aGk="


def say(role: str, *texts: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text} for text in texts]
    return {"type": "message", "role": role, "content": content}


def call(id_: str, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": id_, "name": "f", "arguments": arguments}


def output(id_: str, said: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id_, "output": said}


def thought(text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "summary": [], "content": content}


def read(*given_: Any) -> items.Input:
    return items.parse(list(given_), Ignored())


def messages_of(*given_: Any) -> list[dict[str, Any]]:
    return together([], [one for one in read(*given_).messages if one is not None])


def as_call(id_: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_a_turn_of_the_assistant_is_one_message() -> None:
    assert messages_of(
        say("user", "hi"),
        thought("hm"),
        say("assistant", "I see"),
        call("a"),
        call("b", "[1]"),
        output("a", "1"),
        output("b", "2"),
        call("c"),
    ) == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "I see",
            "reasoning_content": "hm",
            "tool_calls": [as_call("a"), as_call("b", "[1]")],
        },
        {"role": "tool", "content": "1", "tool_call_id": "a"},
        {"role": "tool", "content": "2", "tool_call_id": "b"},
        {"role": "assistant", "content": None, "tool_calls": [as_call("c")]},
    ]


def test_what_comes_again_in_a_turn_is_a_message_of_its_own() -> None:
    found = messages_of(call("a"), say("assistant", "x"), say("assistant", "y"), thought("hm"))
    assert [one["content"] for one in found] == [None, "x", "y", ""]
    assert found[-1]["reasoning_content"] == "hm"


def test_what_was_inherited_stays_as_it_is() -> None:
    before = [{"role": "assistant", "content": "x"}]
    found = together(before, [{"role": "assistant", "content": None, "tool_calls": []}])
    assert len(found) == 2
    assert before == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": IMAGE}}],
            },
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": "no"},
        ),
        (
            {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "x"},
            {"role": "assistant", "content": None, "tool_calls": [as_call("a", '{"input":"x"}')]},
        ),
        (
            {"type": "custom_tool_call_output", "call_id": "a", "output": "x"},
            {"role": "tool", "content": "x", "tool_call_id": "a"},
        ),
        (
            output("a", [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]),
            {"role": "tool", "content": "x\ny", "tool_call_id": "a"},
        ),
        (
            {"type": "reasoning", "summary": [], "encrypted_content": opened("hm")},
            {"role": "assistant", "content": "", "reasoning_content": "hm"},
        ),
    ],
)
def test_kinds_of_items(item: dict[str, Any], message: dict[str, Any]) -> None:
    assert messages_of(item) == [message]


def test_members_that_change_nothing_are_dropped_and_named() -> None:
    ignored = Ignored()
    found = items.parse(
        [
            {**say("user", "x"), "id": "msg_1", "status": "completed", "phase": "commentary"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "reasoning", "summary": [], "encrypted_content": "secret"},
        ],
        ignored,
    )
    assert found.items == [say("user", "x")]
    assert list(ignored.names) == [
        "input[].phase",
        "input[1].web_search_call",
        "input[2].reasoning",
    ]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "local_shell_call_output", "output": "x"}, "input[0].type"),
        ({"content": "x"}, "input[0].type"),
        ({"type": "skipped"}, "input[0].type"),
        (say("user") | {"content": [{"type": "input_file", "file_id": "f"}]}, ".content[0].type"),
        (say("user") | {"content": [{"type": "odd"}]}, "input[0].content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "input[0].content[0].file_id",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]},
            "input[0].content[0].image_url.url",
        ),
        ({"role": "system", "content": [{"type": "input_image", "image_url": IMAGE}]}, "input[0]."),
        ({"type": "message", "role": "tool", "content": "x"}, "[0].role"),
        ({"type": "function_call", "call_id": "a", "name": "f"}, "[0].arguments"),
    ],
)
def test_what_cannot_be_conveyed_is_refused(item: dict[str, Any], param: str) -> None:
    with pytest.raises(HttpError) as caught:
        read(item)
    assert param in (caught.value.param or "")
    assert "messages[" not in caught.value.message


def test_an_empty_input_is_refused() -> None:
    with pytest.raises(HttpError, match="input is empty"):
        read()


# -- merging --------------------------------------------------------------------------------------


def test_system_messages_and_users_messages_are_merged() -> None:
    messages = messages_of(
        say("developer", "a"), say("system", "b"), say("user", "c"), say("user", "d")
    )
    found, merges = merged(messages)
    assert found == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "c\n\nd"},
    ]
    assert merges == [(0, [1, 1]), (1, [1, 1])]
    assert unmerged(found, merges) == messages


MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant"]),
        st.one_of(st.text(max_size=4), st.just([{"type": "text", "text": "x"}])),
    ),
    max_size=8,
)


@given(MESSAGES)
def test_what_is_merged_can_be_taken_apart(messages: list[dict[str, Any]]) -> None:
    found, merges = merged(messages)
    assert unmerged(found, merges) == messages
    for one, other in pairwise(found):
        texts = type(one["content"]) is type(other["content"]) is str
        assert one["role"] != other["role"] or one["role"] == "assistant" or not texts


# -- what is listed again -------------------------------------------------------------------------

TEXTS = st.text(min_size=1, max_size=4)
ITEMS = st.lists(
    st.one_of(
        st.builds(say, st.sampled_from(["user", "assistant", "system", "developer"]), TEXTS),
        st.builds(say, st.sampled_from(["user", "assistant"]), TEXTS, TEXTS),
        st.builds(call, st.sampled_from("abc")),
        st.builds(output, st.sampled_from("abc"), TEXTS),
        st.builds(thought, TEXTS),
    ),
    min_size=1,
    max_size=8,
)


@given(ITEMS)
def test_all_items_can_be_listed_again(given_: list[dict[str, Any]]) -> None:
    found = read(*given_)
    assert found.items == given_
    own = messages_of(*given_)
    differing, count = kept(own, found.items)
    listed = items_of(own)[: len(given_) if count is None else count]
    for place, item in differing:
        listed[place : place + 1] = [item]
    assert listed == given_


def test_nothing_is_kept_of_what_the_messages_give_back() -> None:
    given_ = [say("user", "a"), thought("hm"), say("assistant", "b"), call("x"), output("x", "y")]
    assert kept(messages_of(*given_), read(*given_).items) == ([], None)
    image = {"type": "input_image", "image_url": IMAGE}
    picture = {"type": "message", "role": "user", "content": [image]}
    assert kept(messages_of(picture), read(picture).items) == ([], None)
