"""What an upstream answers in place of what was asked for, in our words."""

from __future__ import annotations

import email.utils
import html
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from llcuda_net.errors import (
    ContextExceeded,
    InvalidRequest,
    RequestError,
    UpstreamBusy,
    UpstreamError,
    UpstreamLacks,
    UpstreamNotReady,
)

#: Longest body of an error answer that is kept, in bytes.
MAX_ERROR_BODY = 64 << 10
#: Longest head of an answer, in bytes, all that comes before the final status included.
MAX_HEAD = 64 << 10
#: Seconds to wait where an upstream asks for more: by then it may have changed its mind.
LONGEST_PAUSE = 60.0
#: Seconds after which a client tries again, where the upstream names no time.
RETRY_AFTER = 1.0

#: What decoding JSON raises; RecursionError at a thousand opening brackets.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
#: More than llama-server embeds at once; its advice is for whoever started it.
_TOO_LARGE = re.compile(
    r"input \((\d+) tokens\) is too large to process\..*batch size: (\d+)", re.IGNORECASE
)
#: llama.cpp loses track of some grammars with tokens (!<[5]>): a 500 that the request causes.
_LOST_GRAMMAR = "Unexpected empty grammar stack"
#: What llama-server answers with a 500, and is the request's doing: it cannot read a chat.
_UNREADABLE = re.compile(r"Failed to parse (?:messages|tools|tool call|tool_choice)\b")
#: That there is nothing at a path, or not for this method; see `upstream_failure`.
_NO_ROUTE = re.compile(r"the upstream answered (40[45]: .*)")
#: A page, of which so many characters are looked at; its title.
_PAGE = 16 << 10
_HTML = re.compile(r"\s*(?:<\?xml\b[^>]*>\s*)?<(?:!doctype\s+html|html|head|body)\b", re.I)
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title\s*>", re.I | re.S)
_TAG = re.compile(r"<[^>]*>")
_BLIND = re.compile(r"(?:image|audio|video) input is not supported")


def nonsense(what: str) -> RequestError:
    """The error for an upstream that does not speak as a llama-server does."""
    return UpstreamError(f"the upstream did not answer as a llama-server: {what}")


def refused_encoding(status: int, headers: Mapping[str, str]) -> RequestError | None:
    """The error for an encoded body; None where it is plain, as every request asks for.

    What is encoded may grow a thousandfold, and an event stream is read as it comes.

    Args:
        headers: of the answer, names in lower case.
    """
    for name, plain in (
        ("content-encoding", ("", "identity")),
        ("transfer-encoding", ("", "identity", "chunked")),
    ):
        encoding = headers.get(name, "").strip().lower()
        if encoding in plain:
            continue
        what = f"its body is encoded ({name}: {_line(encoding, 40)}), which was not asked for"
        if status != 200:
            return upstream_failure(status, what.encode(), headers)
        return UpstreamError(
            f"the upstream's answer cannot be read: {what}; have it, or the proxy before it, send "
            "plain bodies"
        )
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds after which the upstream wants to be asked again; None where it does not say.

    Args:
        headers: of the answer, names in lower case.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d*)?", value, flags=re.ASCII):
            return min(float(value) * unit, LONGEST_PAUSE)
    seconds = _until(headers.get("retry-after", ""), headers.get("date", ""))
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_PAUSE)


def _until(date: str, now: str) -> float | None:
    """Seconds until an HTTP date, by the server's own clock where it tells its time."""
    try:
        at = email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    try:
        seconds = at - email.utils.parsedate_to_datetime(now).timestamp()
    except (ValueError, TypeError, OverflowError):
        seconds = at - time.time()
    return seconds if math.isfinite(seconds) else None


def upstream_failure(
    status: int, body: bytes | bytearray, headers: Mapping[str, str] | None = None
) -> RequestError:
    """The error for a failure that the upstream reported, in our words where they are known.

    Args:
        status: of the answer; 500 for an error in an answer that began well. A code in the body
            that is an HTTP status of an error goes before it.
        headers: of the answer, names in lower case.
    """
    kind, message, code = "", "", None
    try:
        answer = msgspec.json.decode(body)
        found = answer.get("error", answer)
        if isinstance(found, dict):
            kind, message = str(found.get("type", "")), str(found.get("message", ""))
            code = found.get("code")
        else:
            message = str(found)
    except (*NOT_JSON, AttributeError):
        page = page_title(body, headers or {}, status)
        message = page or body[:200].decode("utf-8", "replace")
    message = _line(message, 500) or "no reason given"
    headers = headers or {}
    pause = retry_after(headers)
    final = headers.get("x-should-retry", "").strip().lower() == "false"
    if status not in (429, 503) and isinstance(code, int) and 400 <= code <= 599:
        status = code
    if kind == "exceed_context_size_error":
        return ContextExceeded(f"the prompt is too long: {message}")
    if too_large := _TOO_LARGE.search(message):
        return ContextExceeded(
            f"a text to embed or to rank is too long: {too_large[1]} tokens, where the upstream "
            f"takes {too_large[2]}",
        )
    if kind == "not_supported_error" or status == 501:
        return UpstreamLacks(f"the upstream cannot do that: {message}")
    if _BLIND.search(message):
        return UpstreamLacks(f"the model cannot take it: {message}")
    if _UNREADABLE.search(message):
        return InvalidRequest(f"the upstream cannot read the chat: {message}")
    if _LOST_GRAMMAR in message:
        return InvalidRequest(f"the upstream cannot follow the grammar: {message}")
    if not final and (status == 429 or (status == 503 and pause is not None)):
        return UpstreamBusy(
            f"the upstream takes no more for now: {message}", retry=True, retry_after=pause
        )
    if not final and status == 503:
        return UpstreamNotReady(
            f"the upstream is not ready: {message}", retry=True, retry_after=RETRY_AFTER
        )
    if status == 400:
        return InvalidRequest(f"the upstream refused it: {message}")
    if status in (401, 403):
        return UpstreamError(f"the upstream wants another API key or password: {message}")
    again = not final and (status >= 500 or status in (408, 409))
    return UpstreamError(
        f"the upstream answered {status}: {message}",
        retry=again,
        retry_after=pause if again else None,
    )


@contextmanager
def may_lack(path: str) -> Iterator[None]:
    """Encloses a request for what not every build of llama-server has.

    Raises:
        UpstreamLacks: this one has not: it is well, and does all else.
    """
    try:
        yield
    except UpstreamError as error:
        if (found := _NO_ROUTE.match(error.message)) is None:
            raise
        raise UpstreamLacks(f"this llama-server has no {path} (it answered {found[1]})") from error


def error_in(body: bytes | bytearray, headers: Mapping[str, str]) -> RequestError | None:
    """The error in a body of JSON that came with status 200; None where there is none."""
    if len(body) > MAX_ERROR_BODY or b'"error"' not in body:
        return None
    try:
        answer: Any = msgspec.json.decode(body)
    except NOT_JSON:
        return None
    if not isinstance(answer, dict) or answer.get("error") in (None, False):
        return None
    return upstream_failure(500, body, headers)


def page_title(
    body: bytes | bytearray, headers: Mapping[str, str], status: int = 200
) -> str | None:
    """A page of HTML, as proxies send, in words: its title, or else the little that it says.

    None of what is no such page.

    Args:
        headers: of the answer, names in lower case.
        status: of the answer, which a title often begins with.
    """
    text = bytes(body[:_PAGE]).decode("utf-8", "replace")
    if "text/html" not in headers.get("content-type", "").lower() and not _HTML.match(text):
        return None
    title = _TITLE.search(text)
    words = _line(html.unescape(_TAG.sub(" ", title[1] if title else text)), 500)
    if title is None and len(words) > 100:
        words = ""
    words = words[:100].removeprefix(str(status)).strip() or "no title"
    return f"a proxy's page of HTML: {words}"


def _line(text: str, longest: int) -> str:
    return " ".join(text.split())[:longest]
