"""A generation as a file: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.server.http.delivery.download import fenced, headers_of, quoted
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import check_names
from llcuda_net.storage.packing.codec import content_text, preview

#: Forms of an export: the suffix and the type of the file.
FORMATS = {
    "markdown": (".md", "text/markdown; charset=utf-8"),
    "json": (".json", "application/json"),
}
_ROLES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def wanted_format(query: Mapping[str, str]) -> str:
    """The form that a request asks for.

    Raises:
        HttpError: there is none such, or a parameter that nothing would come of.
    """
    check_names(query, ("format",))
    wanted = query.get("format", "markdown")
    if wanted not in FORMATS:
        message = f"format must be {' or '.join(FORMATS)}, not {wanted[:60]!r}"
        raise HttpError(400, message, param="format", code="invalid_request")
    return wanted


async def respond(
    exchange: Exchange, generation: Generation, document: dict[str, Any], form: str
) -> None:
    """Answer with a file.

    Args:
        document: of the generation, as it is shown.
        form: one of FORMATS.

    Raises:
        RequestError: there is not so much memory.
    """
    suffix, kind = FORMATS[form]
    write = _json if form == "json" else _markdown
    with exchange.host.holding(exchange.request.user, 4 * sizes.of(document)):
        body = await trio.to_thread.run_sync(write, document)
        headers = headers_of(preview(document["request"]), suffix)
        exchange.respond(200, body, kind, {**headers, "x-llcuda-generation": generation.id})


def markdown(document: Mapping[str, Any]) -> str:
    """A generation for people to read: what was asked, and what was answered, as it was written.

    Args:
        document: of the generation, as it is shown.
    """
    return "\n\n".join(_parts(document)) + "\n"


def _markdown(document: dict[str, Any]) -> bytes:
    return markdown(document).encode("utf-8", "replace")


def _json(document: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    request = document["request"]
    yield f"# {preview(request) or document['id']}"
    yield "\n".join(f"- {name}: {value}" for name, value in _facts(document) if value)
    if isinstance(prompt := request.get("prompt"), str):
        yield "## Prompt"
        yield prompt
    for message in request.get("messages") or ():
        yield from _message(message)
    yield "## Assistant"
    yield from _said(document["reasoning"], document["text"], document["tool_calls"])
    if error := document["error"]:
        yield f"*It ended with an error: {error['message']}*"


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    created = datetime.fromtimestamp(int(document["created"]), UTC)
    yield "Model", document["model"]
    yield "Asked", f"{created:%Y-%m-%d %H:%M:%S} UTC"
    yield "State", document["state"]
    yield "Tokens", document["tokens"]
    yield "Generation", document["id"]


def _message(message: Mapping[str, Any]) -> Iterator[str]:
    role = str(message.get("role"))
    yield f"## {_ROLES.get(role, role)}"
    shown = "\n\n".join(_contents(message.get("content")))
    if role == "tool" and shown:
        shown = fenced(shown)
    yield from _said(message.get("reasoning_content"), shown, message.get("tool_calls"))


def _contents(content: Any) -> Iterator[str]:
    """The parts of a message's content in order, with a word for what is no text."""
    for part in content if isinstance(content, list) else [content]:
        if text := content_text(part if isinstance(part, str) else [part]):
            yield text
        elif isinstance(part, dict):
            kind = str(part.get("type")).removesuffix("_url").removeprefix("input_")
            yield f"*[{kind}]*"


def _said(reasoning: str | None, text: str, calls: Any) -> Iterator[str]:
    if reasoning:
        yield quoted(reasoning.rstrip("\n"))
    if text:
        yield text.rstrip("\n")
    for call in calls or ():
        function = call["function"]
        yield f"Call of `{function['name']}`:"
        yield fenced(_pretty(function["arguments"]), "json")


def _pretty(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
