"""GET /v1/conversations/{id}/export: a conversation as a file, for people or for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from llcuda_net.server.http.conversations.pages import Known, known, nodes
from llcuda_net.server.http.conversations.tree import Spot
from llcuda_net.server.http.conversations.view import view
from llcuda_net.server.http.delivery.download import fenced, headers_of, quoted
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import check_names
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.server.http.responses.transcript import Item, text_of

#: Forms of an export: the suffix and the type of the file.
FORMATS = {
    "markdown": (".md", "text/markdown; charset=utf-8"),
    "json": (".json", "application/json"),
}
#: What there can be of it.
VERSIONS = ("active", "all")
#: Bytes of a file, at most: it is made in memory.
MOST = 32 << 20
_ROLES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}


async def export(exchange: Exchange) -> None:
    """The active path of a conversation as a file, or all of its versions."""
    form, versions = _wanted(exchange.request.query)
    found = await known(exchange, await chains.named(exchange, exchange.request.parameters["id"]))
    spots = list(found.tree.spots.values())
    if versions == "active":
        spots = found.tree.active_path()
    with exchange.host.holding(exchange.request.user, 2 * min(MOST, 4096 + (len(spots) << 13))):
        made = await _all(exchange, found, spots)
        suffix, kind = FORMATS[form]
        write = _json if form == "json" else _markdown
        body = await trio.to_thread.run_sync(write, found, made)
        title = found.conversation.title or found.conversation.preview or "conversation"
        exchange.respond(200, body, kind, headers_of(title, suffix))


def _wanted(query: Mapping[str, str]) -> tuple[str, str]:
    check_names(query, ("format", "versions"))
    form, versions = query.get("format", "markdown"), query.get("versions", "active")
    for name, value, known_ in (("format", form, FORMATS), ("versions", versions, VERSIONS)):
        if value not in known_:
            raise _refused(name, f"{name} must be {' or '.join(known_)}, not {value[:60]!r}")
    if versions == "all" and form != "json":
        raise _refused("versions", "versions=all goes with format=json")
    return form, versions


def _refused(param: str, message: str) -> HttpError:
    return HttpError(400, message, param=param, code="invalid_request")


async def _all(exchange: Exchange, found: Known, spots: Sequence[Spot]) -> list[msgspec.Raw]:
    """All entries at these spots as JSON.

    Raises:
        HttpError: they are too large.
    """
    made: list[msgspec.Raw] = []
    size = done = 0
    while done < len(spots):
        page = await nodes(exchange, found, spots[done:], render=False)
        if not page:
            break
        made += [one for _, one in page]
        size += sum(len(bytes(one)) for _, one in page)
        if size > MOST:
            raise HttpError(
                400,
                f"the conversation has more than {MOST >> 20} MiB: read it in pages, at "
                "/v1/conversations/{id}/responses",
                code="invalid_request",
            )
        done = 1 + spots.index(page[-1][0], done)
    return made


def _json(found: Known, made: Sequence[msgspec.Raw]) -> bytes:
    document = {
        **view(found.conversation),
        "active": found.tree.active,
        "entries": made,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _markdown(found: Known, made: Sequence[msgspec.Raw]) -> bytes:
    entries = (msgspec.json.decode(one) for one in made)
    return ("\n\n".join(_parts(found, entries)) + "\n").encode("utf-8", "replace")


def _parts(found: Known, entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    conversation = found.conversation
    created = datetime.fromtimestamp(conversation.created // 10**9, UTC)
    yield f"# {_on_one_line(conversation.title or conversation.preview or conversation.id)}"
    yield f"- Begun: {created:%Y-%m-%d %H:%M:%S} UTC\n- Conversation: {conversation.id}"
    for entry in entries:
        if instructions := entry.get("instructions"):
            yield "## System"
            yield instructions
        for item in (*entry["input"], *entry["output"]):
            yield from _item(item, entry.get("model") or "")
        if error := entry.get("error"):
            yield f"*It ended with an error: {_on_one_line(error['message'])}*"


def _item(item: Item, model: str) -> Iterator[str]:
    kind = item["type"]
    if kind == "message":
        role = _ROLES.get(item["role"], item["role"])
        named = f" ({_on_one_line(model)})" if role == "Assistant" and model else ""
        yield f"## {role}{named}"
        for part in item.get("content") or ():
            if text := part.get("text") or part.get("refusal"):
                yield text.rstrip("\n")
            elif "text" not in part:
                yield f"*[{str(part['type']).removeprefix('input_')}]*"
    elif kind == "reasoning":
        yield quoted(text_of(item).rstrip("\n"))
    elif kind in ("function_call", "custom_tool_call"):
        yield f"Call of `{_on_one_line(item['name'])}`:"
        yield fenced(item.get("arguments") or item.get("input") or "", "json")
    else:
        output = item.get("output")
        parts = output if isinstance(output, list) else [{"text": output or ""}]
        yield "## Tool"
        yield fenced("\n".join(part.get("text") or f"[{part['type']}]" for part in parts))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
