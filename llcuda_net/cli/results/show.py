"""`llcuda results show`: everything that is stored of one result."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from llcuda_net.analysis import certainty
from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.json_documents import certainty as certainty_document
from llcuda_net.cli.json_documents import document, line, plain
from llcuda_net.cli.results.certainty import MARKS, figures_of_text, marked_text
from llcuda_net.cli.results.find import whole_id
from llcuda_net.cli.tables import fields, table
from llcuda_net.cli.units import bytes_text, local
from llcuda_net.storage.channels import BEGINNING, TOOL_CALL, Part, parts
from llcuda_net.storage.records import Result, unpacked
from llcuda_net.storage.results.interface import CertaintyStats, Store
from llcuda_net.util.terminal import echo, echo_data, harmless, paint

#: The phases in the order in which a request goes through them.
_PHASES = (
    "queue",
    "template",
    "connect",
    "first_token",
    "prompt",
    "generation",
    "post_processing",
    "persist",
    "total",
)


def show_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results show`."""
    found = store.get(whole_id(store, arguments.id))
    if found is None:
        fail(f"the result {arguments.id} was deleted just now", Exit.REFUSED)
    figures = _figures(found, store)
    if arguments.json:
        echo(line({**document(found), "certainty": certainty_document(figures)}))
    elif arguments.text:
        text = found.text if found.text.endswith("\n") else found.text + "\n"
        echo_data(text, exact=True)
    else:
        for text in _lines(found, figures, tokens=arguments.tokens):
            echo(text, styled=True)
    return Exit.OK


def _figures(found: Result, store: Store) -> CertaintyStats | None:
    """How certain the model was: from the store, or else computed here."""
    if not found.log.logprobs:
        return None
    stored = store.analyses.certainty(found.id)
    if stored is None:
        return certainty.certainty_stats([found.log.logprobs], compiled=False)[0]
    return replace(stored, unknown=certainty.unknown_tokens(found.log.logprobs))


def _lines(found: Result, figures: CertaintyStats | None, *, tokens: bool) -> Iterator[str]:
    yield _head(f"result {found.id}")
    yield from fields(_about(found))
    if found.model:
        yield from _section("model", _pairs(found.model))
    if found.usage:
        yield from _section("tokens", [(name, f"{n:,}") for name, n in found.usage.items()])
    if found.timings:
        names = sorted(found.timings, key=lambda n: (_order(n), n))
        # All add up to the total, but for the prompt.
        parts = {"prompt": "  of first_token, by the llama-server's clock"}
        wide = [(n, f"{found.timings[n]:12,.1f} ms{parts.get(n, '')}") for n in names]
        yield from _section("times", wide)
    rest = {k: v for k, v in found.request.items() if k not in ("prompt", "messages", "previous")}
    params = rest.pop("params", None)
    if isinstance(params, dict) and params:
        yield from _section("parameters", _pairs(params))
    if rest:
        yield from _section("request", _pairs(rest))
    if figures is not None:
        pairs = figures_of_text(found.log.pieces, found.log.logprobs or [], figures)
        yield from _section("certainty", pairs)
    yield from _prompt(found.request)
    yield from _answer(found)
    if tokens:
        yield ""
        yield from _tokens(found)


def _answer(found: Result) -> Iterator[str]:
    """Reasoning, text and tool calls, in the order in which they were made."""
    pieces, logprobs = found.log.pieces, found.log.logprobs or []
    whole = Part(0, len(pieces), BEGINNING)
    for first, behind, channel in list(parts(found.switches, len(pieces))) or [whole]:
        name = channel.kind
        if channel.kind == TOOL_CALL:
            name = f"tool call {channel.name} ({channel.id})"
        shown = marked_text(pieces[first:behind], logprobs[first:behind])
        is_marked = shown != harmless("".join(pieces[first:behind]))
        yield ""
        yield _head(f"{name}, {MARKS}" if is_marked else name)
        yield shown


def _about(found: Result) -> list[tuple[str, str]]:
    ended = found.reason if found.stop is None else f"{found.reason} at {found.stop!r}"
    pairs = [
        ("state", found.state + (f" ({ended})" if ended else "")),
        ("created", local(found.created)),
        ("finished", local(found.finished)),
        ("upstream", found.upstream),
        ("seed", "" if found.seed is None else str(found.seed)),
        ("level", str(found.level)),
        ("owner", found.owner),
        ("idempotency key", found.key or ""),
        ("request hash", found.request_hash.hex()),
        ("on disconnect", "" if found.on_disconnect is None else str(found.on_disconnect)),
        ("cacheable", "yes" if found.cacheable else "no"),
        ("answered from", found.cached_from or ""),
        ("previous", str(found.request.get("previous") or "")),
    ]
    if found.error is not None:
        pairs.insert(1, ("error", _value(found.error)))
    pairs += [
        ("continued", f"from token {position} on" + (f", at {upstream}" if upstream else ""))
        for position, upstream, _ in found.continuations
    ]
    if found.log.logprobs is not None:
        pairs.append(("log-probabilities", "kept: see --tokens or --json"))
    return [(name, value) for name, value in pairs if value]


def _head(text: str) -> str:
    return paint(harmless(text), "1", sys.stdout)


def _section(name: str, pairs: list[tuple[str, str]]) -> Iterator[str]:
    yield ""
    yield _head(name)
    yield from fields(pairs)


def _pairs(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(name), f"{value:,} ({bytes_text(value)})" if _is_size(name, value) else _value(value))
        for name, value in values.items()
        if value is not None
    ]


def _is_size(name: str, value: Any) -> bool:
    return name == "size" and isinstance(value, int) and value >= 1000


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def _order(phase: str) -> int:
    return _PHASES.index(phase) if phase in _PHASES else len(_PHASES) - 1


def _prompt(request: dict[str, Any]) -> Iterator[str]:
    prompt = request.get("prompt")
    if prompt is not None:
        yield ""
        yield _head("prompt")
        yield harmless(_value(prompt))
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        yield ""
        if isinstance(message, dict) and _is_plain(message):
            yield _head(str(message.get("role", "message")))
            yield harmless(message["content"])
        else:
            yield _head("message")
            yield harmless(_value(message))


def _is_plain(message: dict[str, Any]) -> bool:
    return isinstance(message.get("content"), str) and not message.get("tool_calls")


def _tokens(found: Result) -> Iterator[str]:
    log = found.log
    rows = []
    for number, piece in enumerate(log.pieces):
        token = log.ids[number] if number < len(log.ids) else None
        row = [str(number), "" if token is None else str(token)]
        if log.logprobs is not None:
            beside = unpacked(log.logprobs[number]) if number < len(log.logprobs) else ()
            row.append(" ".join("?" if one[2] is None else f"{one[2]:.4f}" for one in beside))
        rows.append((*row, repr(piece)))
    heads = ["token", "id", "logprob", "piece"]
    if log.logprobs is None:
        heads.remove("logprob")
    yield from table(heads, rows, right=frozenset(range(len(heads) - 1)))
