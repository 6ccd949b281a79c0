"""Messages of a chat as clients send them, and as everything behind has them."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.chat_body import read
from llcuda_net.server.http.openai.fields import Ignored

PNG = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
WAV = base64.b64encode(b"sound").decode()
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def became(*messages: Any, ignored: Ignored | None = None) -> list[dict[str, Any]]:
    """What messages become."""
    return read({"messages": list(messages)}, ignored or Ignored()).messages


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}),
        ({"role": "user", "content": ""}, {"role": "user", "content": ""}),
        (
            {"role": "user", "content": "Hi", "name": "Ada"},
            {"role": "user", "content": "Hi", "name": "Ada"},
        ),
        ({"role": "developer", "content": "Be"}, {"role": "system", "content": "Be"}),
        ({"role": "system", "content": "Be"}, {"role": "system", "content": "Be"}),
        (
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
            {"role": "user", "content": "a\nb"},
        ),
        ({"role": "user", "content": []}, {"role": "user", "content": ""}),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": PNG}},
                ],
            },
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}],
            },
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}],
            },
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
        ),
        (
            {"role": "assistant", "content": "Hi", "reasoning_content": "hm"},
            {"role": "assistant", "content": "Hi", "reasoning_content": "hm"},
        ),
        (
            {"role": "assistant", "content": "Hi", "reasoning": "hm"},
            {"role": "assistant", "content": "Hi", "reasoning_content": "hm"},
        ),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": "no"},
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": "no"},
        ),
        (
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ),
    ],
)
def test_what_a_message_becomes(message: dict[str, Any], expected: dict[str, Any]) -> None:
    ignored = Ignored()
    assert became(message, ignored=ignored) == [expected]
    assert not ignored.names
    assert became(expected) == [expected], "what it became is a message, too"


def test_what_an_sdk_sends_back_is_taken() -> None:
    ignored = Ignored()
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert became(message, ignored=ignored) == [{"role": "assistant", "content": "Hi"}]
    assert set(ignored.names) == {
        "messages[0].annotations",
        "messages[0].audio",
        "messages[0].function_call",
    }


@pytest.mark.parametrize(
    ("message", "param", "text"),
    [
        ({"content": "Hi"}, "messages[0].role", "missing"),
        ({"role": "user"}, "messages[0].content", "missing"),
        ({"role": "user", "content": None}, "messages[0].content", "missing"),
        ({"role": "king", "content": "Hi"}, "messages[0].role", "king"),
        ({"role": ["user"], "content": "Hi"}, "messages[0].role", "Expected `str`"),
        ({"role": "function", "content": "Hi"}, "messages[0].role", "use tool"),
        ({"role": "user", "content": 5}, "messages[0].content", "Expected"),
        ({"role": "user", "content": ["Hi"]}, "messages[0].content[0]", "Expected `object`"),
        ({"role": "user", "content": [{}]}, "messages[0].content[0].type", "missing"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text", "missing"),
        ({"role": "system", "content": [{"text": "a"}]}, "messages[0].content[0].type", "missing"),
        (
            {"role": "user", "content": [{"type": "file", "file": {}}]},
            "messages[0].content[0].type",
            "'file' are not supported",
        ),
        ({"role": "user", "content": "Hi", "mood": "good"}, "messages[0].mood", "not supported"),
        ({"role": "assistant"}, "messages[0].content", "neither content nor tool_calls"),
        (
            {"role": "assistant", "tool_calls": [{"id": "x"}]},
            "messages[0].tool_calls[0].function",
            "missing",
        ),
        ({"role": "tool", "content": "42"}, "messages[0].tool_call_id", "missing"),
    ],
)
def test_what_is_refused(message: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(HttpError) as caught:
        became(message)
    assert text in caught.value.message
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://example.org/cat.png", "data: URLs"),
        ("file:///etc/passwd", "data: URLs"),
        ("data:text/html;base64,AAAA", "data:image/"),
        ("data:image/png,AAAA", "data:image/"),
        ("data:image/png;base64", "data:image/"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,AA!=", "base64"),
        ("data:image/png;base64,AAA", "padding"),
        ("data:image/png;base64,A===", "padding"),
        ("data:image/png;base64,AA=A", "base64"),
        ("data:image/png;base64,é", "base64"),
    ],
)
def test_images_must_be_in_the_request(url: str, text: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(HttpError) as caught:
        became({"role": "user", "content": [part]})
    assert text in caught.value.message
    assert caught.value.param == "messages[0].content[0].image_url.url"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls", "image_url", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(_JSON, max_size=3))
def test_nothing_else_is_raised(messages: list[Any]) -> None:
    with contextlib.suppress(HttpError):
        msgspec.json.encode(became(*messages))
