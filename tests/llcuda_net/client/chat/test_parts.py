"""Images and recordings as a user gives them, in OpenAI's shape, and as they are sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

import llcuda_net
from llcuda_net.client.chat.messages import INLINE, chat_messages, is_plain, to_upload, with_uploads
from llcuda_net.errors import ConfigError, InvalidRequest, LlcudaError
from tests.support.client.media import GIF, JPEG, MP3, MP3_FRAME, PNG, WAV, WEBP


def url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def content(*parts: Any) -> Any:
    """What is sent of the content of one message."""
    message = {"role": "user", "content": [*parts]}
    return chat_messages(None, [message], None, (), ())[0]["content"]


@pytest.mark.parametrize(
    ("kind", "data"), [("png", PNG), ("jpeg", JPEG), ("gif", GIF), ("webp", WEBP)]
)
def test_an_image_is_what_its_bytes_say(kind: str, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "misnamed.txt"
    file.write_bytes(data)
    part = {"type": "image_url", "image_url": {"url": url(kind, data)}}
    for source in (data, bytearray(data), file, str(file), url("x-wrong", data)):
        assert llcuda_net.image(source) == part
    sent = {"type": "image", "media_type": f"image/{kind}", "data": data}
    for given in (part, data, file):
        assert content("look:", given) == [{"type": "text", "text": "look:"}, sent]


@pytest.mark.parametrize(("kind", "data"), [("wav", WAV), ("mp3", MP3), ("mp3", MP3_FRAME)])
def test_a_recording_is_what_its_bytes_say(kind: str, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "recording"
    file.write_bytes(data)
    encoded = base64.b64encode(data).decode()
    part = {"type": "input_audio", "input_audio": {"data": encoded, "format": kind}}
    for source in (data, file, str(file), f"data:audio/whatever;base64,{encoded}"):
        assert llcuda_net.audio(source) == part
    for given in (part, data, file):
        assert content(given) == [{"type": "audio", "format": kind, "data": data}]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"", "the image of 0 bytes is not a PNG, JPEG, WebP or GIF"),
        (WAV, "is not a PNG, JPEG, WebP or GIF image"),
        ("/nonexistent.png", "cannot read image /nonexistent.png: No such file"),
        ("nul\0byte", "cannot read image"),
        ("https://host/a.png", "is a URL: download the image and give the file"),
        ("data:image/png;base64,!!!!", "the image is not base64"),
        ("data:image/png,abc", "not base64"),
    ],
)
def test_what_is_no_image_is_told_in_one_line(source: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        llcuda_net.image(source)
    assert "\n" not in str(caught.value)


def test_what_is_no_recording_is_told() -> None:
    with pytest.raises(ConfigError, match="not WAV or MP3"):
        llcuda_net.audio(PNG)


@pytest.mark.parametrize(
    ("part", "error", "told"),
    [
        (b"text", ConfigError, "neither an image"),
        (7, InvalidRequest, "is text, a mapping, bytes or a Path, not 7"),
        ({"type": "video"}, InvalidRequest, "not of the type 'video'"),
        ({}, InvalidRequest, "not of the type None"),
        (
            {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
            ConfigError,
            "as a data: URL",
        ),
        ({"type": "image_url"}, ConfigError, "as a data: URL"),
        ({"type": "image_url", "image_url": url("png", WAV)}, ConfigError, "is not a PNG"),
        ({"type": "input_audio", "input_audio": {}}, InvalidRequest, "has data and a format"),
        ({"type": "input_audio", "input_audio": {"data": "!"}}, ConfigError, "not base64"),
    ],
)
def test_wrong_parts(part: Any, error: type[LlcudaError], told: str) -> None:
    with pytest.raises(error, match=told):
        content(part)


def test_messages_keep_what_is_theirs() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": "ü"}}}
    given: list[dict[str, Any]] = [
        {"role": "user", "content": "q", "name": "ann"},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
    ]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "ü"}'}}
    assert chat_messages(None, given, "s", (), ()) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q", "name": "ann"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
    ]
    assert is_plain([{"role": "user", "content": "q"}, {"role": "x"}])
    for message in given:
        assert not is_plain([message])
    assert not is_plain([{"role": "user", "content": []}])
    with pytest.raises(InvalidRequest, match="a message is a mapping"):
        chat_messages(None, ["hello"], None, (), ())  # type: ignore[list-item]


def test_media_go_before_the_question() -> None:
    (message,) = chat_messages("what?", None, None, [PNG], [WAV])
    assert [part["type"] for part in message["content"]] == ["image", "audio", "text"]
    (message,) = chat_messages("", None, None, [PNG], [])
    assert [part["type"] for part in message["content"]] == ["image"]


def test_what_does_not_fit_inline_is_uploaded() -> None:
    small, large = PNG + bytes(1000), PNG + bytes(INLINE)
    messages = chat_messages("what?", None, None, [small, large, small], ())
    assert to_upload(messages) == [large]
    (data,) = to_upload(messages)
    (message,) = with_uploads(messages, {id(data): 7})
    assert message["content"][1] == {"type": "image", "media_type": "image/png", "upload": 7}
    assert [part.get("data") for part in message["content"]] == [small, None, small, None]
    assert messages[0]["content"][1]["data"] == large  # to be sent again
    many = chat_messages("what?", None, None, [PNG + bytes(30_000)] * 4, ())
    assert len(to_upload(many)) == 2
