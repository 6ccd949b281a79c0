"""`llcuda-client --models` and `--list`: tables for people, JSON lines for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from typing import Any

from llcuda_net.cli.tables import id_cell, table
from llcuda_net.cli.units import local
from llcuda_net.client.results import Entry
from llcuda_net.util.terminal import echo


def print_models(models: list[dict[str, Any]], *, as_json: bool) -> None:
    """The models of the report; any key may be missing."""
    if as_json:
        _print_json("model", models)
        return
    heads = ("MODEL", "SLOTS", "FREE", "CONTEXT", "DEFAULT", "UPSTREAMS")
    rows = [
        (
            str(model.get("name", "?")),
            *(_count(model.get(key)) for key in ("slots", "free", "context")),
            "yes" if model.get("default") else "",
            ", ".join(map(str, model.get("upstreams") or ())),
        )
        for model in models
    ]
    _print_table(heads, rows, right=frozenset({1, 2, 3}), otherwise="the server has no model now")


def print_entries(entries: list[Entry], *, as_json: bool) -> None:
    """Generations, newest first. Owners are shown where the server names them."""
    if as_json:
        _print_json("generation", map(dataclasses.asdict, entries))
        return
    owned = any(entry.owner for entry in entries)
    heads = ["ID", "WHEN", "STATE", "TOKENS", *(["OWNER"] if owned else []), "MODEL", "PROMPT"]
    rows = [
        [
            id_cell(entry.id),
            local(round(entry.created * 1e9)),
            f"{entry.state}, {entry.position}" if entry.position else entry.state,
            str(entry.tokens),
            *([entry.owner] if owned else []),
            entry.model,
            entry.preview,
        ]
        for entry in entries
    ]
    _print_table(heads, rows, right=frozenset({3}), otherwise="there are no generations")


def _print_table(
    heads: Iterable[str],
    rows: Iterable[Iterable[str]],
    *,
    right: frozenset[int],
    otherwise: str,
) -> None:
    cells = [list(row) for row in rows]
    if not cells:
        echo(otherwise, file=sys.stderr)
        return
    for line in table(list(heads), cells, right=right):
        echo(line, styled=True)


def _print_json(event: str, found: Iterable[dict[str, Any]]) -> None:
    for each in found:
        echo(json.dumps({"event": event, **each}))


def _count(value: Any) -> str:
    """A count; "?" where it is not known."""
    return "?" if value is None else str(value)
