"""Parts of a message: text, images and sound, in the shapes of OpenAI's API.

What a file is, its first bytes say, never its name.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llcuda_net.errors import ConfigError, InvalidRequest

#: An image or a recording: its bytes, its path, or a data: URL.
Source = bytes | bytearray | memoryview | str | os.PathLike[str]

_DATA_URL = re.compile(r"data:[^,]{0,255};base64,", re.IGNORECASE)
_WEB_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def image(source: Source) -> dict[str, Any]:
    """A part with an image, for the `content` of a message.

    Args:
        source: the bytes of a PNG, JPEG, WebP or GIF; the path of such a file, which is read at
            once; or a data: URL with one, in base64.

    Raises:
        ConfigError: it is none of these, or the file cannot be read.
    """
    data, name = _read(source, "image")
    kind = _image_kind(data)
    if kind is None:
        raise ConfigError(f"{name} is not a PNG, JPEG, WebP or GIF image")
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def audio(source: Source) -> dict[str, Any]:
    """A part with recorded sound, for the `content` of a message.

    Args:
        source: as of `image`, of a WAV or MP3.

    Raises:
        ConfigError: as `image`.
    """
    data, name = _read(source, "audio")
    kind = _audio_kind(data)
    if kind is None:
        raise ConfigError(f"{name} is not WAV or MP3 audio")
    encoded = base64.b64encode(data).decode()
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": kind}}


def part(given: Any) -> dict[str, Any]:
    """A part of a message in OpenAI's shape.

    Args:
        given: a part in that shape, a text, or the bytes or the Path of an image or a recording.

    Raises:
        ConfigError: bytes or a file are neither an image nor a recording.
        InvalidRequest: it is none of these.
    """
    if isinstance(given, str):
        return {"type": "text", "text": given}
    if isinstance(given, Mapping):
        return {**given}
    if isinstance(given, bytes | bytearray | memoryview | os.PathLike):
        data, name = _read(given, "part")
        if _image_kind(data) is not None:
            return image(data)
        if _audio_kind(data) is not None:
            return audio(data)
        raise ConfigError(f"{name} is neither an image (PNG, JPEG, WebP, GIF) nor WAV or MP3 audio")
    raise InvalidRequest(
        f"a part of a message is text, a mapping, bytes or a Path, not {given!r:.40}"
    )


def decoded(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part as it is sent: what is base64 in OpenAI's shape is bytes there.

    Raises:
        ConfigError: an image is not a data: URL with an image, or a recording is not base64.
        InvalidRequest: there is no part of this type.
    """
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": part.get("text")}
    if kind == "image_url":
        inner = part.get("image_url")
        url = inner.get("url") if isinstance(inner, Mapping) else inner
        if not isinstance(url, str) or not url[:5].lower() == "data:":
            raise ConfigError("an image is sent as a data: URL: llcuda_net.image(FILE) makes one")
        data, name = _read(url, "image")
        subtype = _image_kind(data)
        if subtype is None:
            raise ConfigError(f"{name} is not a PNG, JPEG, WebP or GIF image")
        return {"type": "image", "media_type": f"image/{subtype}", "data": data}
    if kind == "input_audio":
        inner = part.get("input_audio")
        given = inner.get("data") if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(given, str):
            raise InvalidRequest("a part of the type input_audio has data and a format")
        data = _from_base64(given, "audio")
        return {"type": "audio", "format": inner.get("format"), "data": data}
    raise InvalidRequest(
        f"a part of a message is text, image_url or input_audio, not of the type {kind!r:.40}"
    )


def _read(source: Source, noun: str) -> tuple[bytes, str]:
    """The bytes, and what messages call them."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), f"the {noun} of {len(source)} bytes"
    if isinstance(source, str) and (begin := _DATA_URL.match(source)):
        return _from_base64(source[begin.end() :], noun), f"the {noun} in the data: URL"
    if isinstance(source, str) and source[:5].lower() == "data:":
        raise ConfigError(f"the {noun} in the data: URL is not base64")
    if isinstance(source, str) and _WEB_URL.match(source):
        raise ConfigError(f"{source[:60]!r} is a URL: download the {noun} and give the file")
    path = Path(source)
    try:
        return path.read_bytes(), str(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {noun} {path}: {why}") from None


def _from_base64(text: str, noun: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, too
        raise ConfigError(f"the {noun} is not base64") from None


def _image_kind(data: bytes) -> str | None:
    """The subtype of its media type."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _audio_kind(data: bytes) -> str | None:
    """Its name in OpenAI's API."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    # An ID3v2 tag, or the sync word of an MPEG audio frame: version 1, 2 or 2.5, layer III.
    header = data[:2]
    is_frame = len(header) == 2 and header[0] == 0xFF and header[1] & 0xE6 == 0xE2
    return "mp3" if data.startswith(b"ID3") or is_frame else None
