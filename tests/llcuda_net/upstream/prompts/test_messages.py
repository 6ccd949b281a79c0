from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest, Unsupported
from llcuda_net.upstream.interface import Properties
from llcuda_net.upstream.prompts.messages import are_plain, check_parts, flat, senses_of

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
BLIND = Properties("m", 1, 512, True, "b")
ABLE = Properties("m", 1, 512, True, "b", images=True, audio=True)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more}]


CALL = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def test_text_in_parts_is_plain() -> None:
    for messages in (user("a"), user([text("a"), text("b")]), user([]), user(None, name="ann")):
        assert are_plain(messages)
        check_parts(messages, BLIND)
    assert flat([*user([text("a"), text("b")]), *user("c", name="ann"), *user(None)]) == [
        {"role": "user", "content": "a\nb"},
        {"role": "user", "content": "c", "name": "ann"},
        {"role": "user", "content": ""},
    ]


def test_what_is_not_plain() -> None:
    assert not are_plain([*user("a"), {"role": "tool", "tool_call_id": "a", "content": "5"}])
    assert not are_plain([{"role": "assistant", "content": None, "tool_calls": [CALL]}])
    assert are_plain([{"role": "assistant", "content": "a", "tool_calls": []}])
    for part in (IMAGE, AUDIO):
        assert not are_plain(user([text("a"), part]))
        check_parts(user([text("a"), part]), ABLE)


def test_what_a_model_needs_for_them() -> None:
    assert senses_of(None) == senses_of(user("a")) == senses_of(user([text("a")])) == frozenset()
    assert senses_of([*user([IMAGE]), *user([text("a"), AUDIO])]) == {"images", "audio"}


@pytest.mark.parametrize(
    ("part", "why"),
    [(IMAGE, "the model m takes no images"), (AUDIO, "the model m takes no audio")],
)
def test_what_a_model_cannot_take_is_refused(part: Any, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        check_parts(user([text("a"), part]), BLIND)


def test_nothing_is_fetched_from_elsewhere() -> None:
    for url in ("http://127.0.0.1/x.png", "file:///etc/passwd", " data:image/png;base64,A", ""):
        part = {"type": "image_url", "image_url": {"url": url}}
        with pytest.raises(InvalidRequest, match="as a data: URL"):
            check_parts(user([part]), ABLE)
    with pytest.raises(InvalidRequest, match="no part of a message of type 'video_url'"):
        check_parts(user([{"type": "video_url", "video_url": {"url": "data:x"}}]), ABLE)
