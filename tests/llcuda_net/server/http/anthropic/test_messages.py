"""Messages of Anthropic's API in the shape that everything behind has."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from llcuda_net.server.http.anthropic.body import read
from llcuda_net.server.http.anthropic.fields import RULES
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.fields import Ignored

PIXELS = base64.b64encode(b"pixels").decode()
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PIXELS},
}
IMAGE_PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
CALL_OF_OURS = {
    "id": "toolu_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
}


def made(*messages: Any, ignored: Ignored | None = None, **fields: Any) -> list[dict[str, Any]]:
    """What becomes of messages."""
    body = {"max_tokens": 9, "messages": list(messages), **fields}
    ignored = ignored or Ignored(rules=RULES)
    return read(json.loads(json.dumps(body)), ignored).messages


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if type(content[0]) is str else list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {**user(*content), "role": "assistant"}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def result(content: Any = None, **more: Any) -> dict[str, Any]:
    found = {"type": "tool_result", "tool_use_id": "toolu_1", **more}
    return found if content is None else {**found, "content": content}


def refused(*messages: Any, **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(HttpError) as caught:
        made(*messages, **fields)
    assert caught.value.status == 400
    return caught.value.param, caught.value.message


def test_texts_and_blocks_of_text_are_the_same() -> None:
    plain = [{"role": "user", "content": "a\nb"}]
    assert made(user("a\nb")) == made(user(text("a"), text("b"))) == plain


def test_the_system_prompt_comes_first() -> None:
    asked = user("Hi")
    expected = [{"role": "system", "content": "be\nkind"}, {"role": "user", "content": "Hi"}]
    assert made(asked, system="be\nkind") == expected
    assert made(asked, system=[text("be"), text("kind")]) == expected
    assert made({"role": "system", "content": "kind"}, asked, system="be") == expected
    assert made(asked, system="") == expected[1:]


def test_a_system_message_on_the_way_is_part_of_the_users_turn() -> None:
    found = made(user("Hi"), {"role": "system", "content": [text("be kind")]}, user("there"))
    said = "Hi\n<system-reminder>\nbe kind\n</system-reminder>\nthere"
    assert found == [{"role": "user", "content": said}]


def test_neighbours_of_one_role_are_one_turn() -> None:
    found = made(
        user("a"),
        user("b"),
        assistant("c"),
        assistant(
            "d",
        ),
        user("e"),
    )
    assert [(one["role"], one["content"]) for one in found] == [
        ("user", "a\nb"),
        ("assistant", "c\nd"),
        ("user", "e"),
    ]


def test_neighbouring_answers_keep_their_thoughts_and_calls() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    second = {**CALL, "id": "toolu_2"}
    found = made(user("a"), assistant(thinking, CALL), assistant(thinking, second), user("b"))
    assert found[1] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm\nhm",
        "tool_calls": [CALL_OF_OURS, {**CALL_OF_OURS, "id": "toolu_2"}],
    }


def test_an_image() -> None:
    found = made(user(text("What is it?"), IMAGE))
    assert found[0]["content"] == [text("What is it?"), IMAGE_PART]


def test_a_call_and_its_result() -> None:
    found = made(
        user("Weather?"),
        assistant(text("I look."), CALL),
        user(result("rain"), text("And now?")),
    )
    assert found[1:] == [
        {"role": "assistant", "content": "I look.", "tool_calls": [CALL_OF_OURS]},
        {"role": "tool", "content": "rain", "tool_call_id": "toolu_1"},
        {"role": "user", "content": "And now?"},
    ]


def test_results_go_before_what_the_user_says() -> None:
    found = made(user("a"), assistant(CALL), user(text("first"), result("rain"), result("sun")))
    assert [(one["role"], one["content"]) for one in found[2:]] == [
        ("tool", "rain"),
        ("tool", "sun"),
        ("user", "first"),
    ]


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result(), ""),
        (result([text("a"), text("b")]), "a\nb"),
        (result([text("a"), IMAGE]), [text("a"), IMAGE_PART]),
        (result("no city", is_error=True), "Error: no city"),
        (result("rain", is_error=False), "rain"),
        (result(is_error=True), "Error: "),
        (result([IMAGE], is_error=True), [text("Error: "), IMAGE_PART]),
        (result([{"type": "tool_reference", "tool_name": "f"}]), "There is a tool f."),
    ],
)
def test_what_a_tool_answered(block: dict[str, Any], content: Any) -> None:
    assert made(user("a"), assistant(CALL), user(block))[2]["content"] == content


def test_thinking_comes_back_as_reasoning() -> None:
    ignored = Ignored(rules=RULES)
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "redacted_thinking", "data": "????"},
        text("Yes", citations=None),
    ]
    found = made(user("a"), assistant(*blocks), user("b"), ignored=ignored)
    assert found[1] == {"role": "assistant", "content": "Yes", "reasoning_content": "hm"}
    assert "messages[1].content[1]" in ignored.names


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (
            {
                "type": "document",
                "title": "A title",
                "context": "of mine",
                "source": {"type": "text", "media_type": "text/plain", "data": "Words."},
                "citations": {"enabled": True},
            },
            "A title\nof mine\nWords.",
        ),
        ({"type": "document", "source": {"type": "content", "content": "Words."}}, "Words."),
        (
            {
                "type": "document",
                "source": {"type": "content", "content": [text("Words.", cache_control={}), IMAGE]},
            },
            [text("Words."), IMAGE_PART],
        ),
        (
            {
                "type": "search_result",
                "source": "https://example.org",
                "title": "A title",
                "content": [text("Words.")],
            },
            "A title\nhttps://example.org\nWords.",
        ),
    ],
)
def test_documents_that_are_text(block: dict[str, Any], content: Any) -> None:
    assert made(user(block)) == [{"role": "user", "content": content}]


def test_what_changes_nothing_is_named() -> None:
    ignored = Ignored(rules=RULES)
    cached = {"cache_control": {"type": "ephemeral"}}
    made(
        user(text("a", **cached)),
        assistant({**CALL, "caller": {"type": "direct"}}),
        user(result("b", **cached)),
        system=[text("c", **cached)],
        ignored=ignored,
    )
    assert list(ignored.names) == [
        "messages[0].content[0].cache_control",
        "messages[1].content[0].caller",
        "messages[2].content[0].cache_control",
        "system[0].cache_control",
    ]


@pytest.mark.parametrize(
    ("block", "param", "words"),
    [
        (
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            "messages[0].content[0].source.type",
            "fetches nothing",
        ),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f"}},
            "messages[0].content[0].source.type",
            "there are no files",
        ),
        (
            {"type": "image", "source": {**IMAGE["source"], "data": "?"}},  # type: ignore[dict-item]
            "messages[0].content[0].source.data",
            "base64",
        ),
        (
            {"type": "image", "source": {**IMAGE["source"], "media_type": "a/b"}},  # type: ignore[dict-item]
            "messages[0].content[0].source.media_type",
            "image/png",
        ),
        (
            {"type": "document", "source": {"type": "base64", "data": PIXELS}},
            "messages[0].content[0].source.type",
            "documents must be text",
        ),
        (
            {"type": "server_tool_use", "id": "a", "name": "web_search", "input": {}},
            "messages[0].content[0].type",
            "'server_tool_use'",
        ),
        (text("a", colour="red"), "messages[0].content[0].colour", "not supported"),
        ({"type": "text"}, "messages[0].content[0].text", "missing"),
        ({"text": "a"}, "messages[0].content[0].type", "missing"),
        (CALL, "messages[0].content[0].type", "tool_use"),
        ("a", "messages[0].content[0]", "object"),
    ],
)
def test_what_is_refused(block: Any, param: str, words: str) -> None:
    found, message = refused({"role": "user", "content": [block]})
    assert found == param
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "system", "content": "a"}], "messages"),
        ([{"role": "model", "content": "a"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([user("a"), assistant(CALL)], "messages"),
        ([user("a"), assistant("")], "messages"),
        ([user("a"), assistant(result("b"))], "messages[1].content[0].type"),
        (["a"], "messages[0]"),
    ],
)
def test_messages_that_are_none(messages: list[Any], param: str) -> None:
    assert refused(*messages)[0] == param
