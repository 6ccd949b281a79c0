"""The screen of `llcuda top` as lines, section by section, for a terminal or for a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from llcuda_net.cli.top.grid import Cell, Column, Line, Span, cut, grid
from llcuda_net.cli.top.history import Change
from llcuda_net.cli.top.view import SLOT_STATES, View
from llcuda_net.cli.units import bytes_text

#: How slots are drawn: distinct without colour, too. In ASCII where there is no terminal.
BLOCKS = {"busy": "█", "releasing": "▒", "foreign": "▓", "free": "░"}
ASCII = {"busy": "#", "releasing": "~", "foreign": "x", "free": "."}
_SLOT_STYLES = {"busy": "busy", "releasing": "warn", "foreign": "foreign", "free": "dim"}
_STATE_STYLES = {
    "up": "good",
    "down": "bad",
    "probing": "warn",
    "draining": "warn",
    "loading": "warn",
    "leaving": "warn",
    "unloading": "dim",
    "unloaded": "dim",
    "loaded": "good",
}
_STANDING_STYLES = {"member": "good", "stopped": "warn", "fenced": "bad"}
#: States of an upstream that are good, or whose reason stands with its model.
_EXPLAINED = ("up", "unloaded", "loading", "leaving", "unloading")
_ANONYMOUS = "(anonymous)"
#: Longest bar.
_BAR = 32
#: Above this many, what waits for the store is worth a look.
_BACKLOG = 500


def title(view: View, server: str, room: int) -> list[Line]:
    """Which server, and its figures."""
    version = f" {view.version}" if view.version else ""
    up = "" if view.uptime is None else f"  up {span_text(view.uptime)}"
    first = [Span(f"llcuda-server{version}", "strong"), Span(f"  {server}{up}", "")]
    if view.draining:
        first.append(Span("  DRAINING", "warn"))
    slots = sum(len(one.cells) for one in view.upstreams)
    running = view.requests.get("running")
    of = f" of {slots:,}" if slots else ""
    now = [
        None if running is None else (f"running {running:,}{of}", ""),
        _count("waiting", view.requests.get("queued"), "warn"),
        None if view.speed is None else (f"{speed_text(view.speed)} tokens/s", "strong"),
        _count("clients", view.connections),
        _count("streams", view.streams),
    ]
    names = ("done", "failed", "cancelled", "interrupted", "failovers")
    bad = {"failed": "bad", "interrupted": "bad", "failovers": "warn"}
    since = [
        _count(name, count, bad.get(name, ""))
        for name in names
        if (count := view.requests.get(name)) or name != "interrupted"  # rare, and room is too
    ]
    since.append(_count("tokens", view.tokens))
    return [cut(line, room) for line in (first, _joined(now), _joined(since)) if line]


def upstreams(view: View, room: int, glyphs: dict[str, str]) -> list[Line]:
    """Each upstream with a bar of its slots, and the reason where it is not up."""
    if not view.upstreams:
        return []
    columns = [
        Column("UPSTREAM", least=16),
        Column("STATE"),
        Column("SLOTS"),
        Column("MODEL", least=14, rank=1),
        Column("TOK/S", right=True, rank=2),
        Column("FAILURES", right=True, rank=5),
        Column("FAILOVERS", right=True, rank=3),
        Column("RESTARTS", right=True, rank=4),
        Column("CONTEXT", right=True, rank=6),
    ]
    longest = max(len(one.cells) for one in view.upstreams)
    most = min(_BAR, longest, max(8, room // 4))
    rows: list[Sequence[Cell]] = []
    for one in view.upstreams:
        drawn = max(1, round(len(one.cells) / longest * most)) if longest else 0
        bar = [*_bar(one.cells, drawn, glyphs), Span(" " * (most - drawn)), _taken(one.cells)]
        rows.append(
            [
                one.name,
                Span(one.state, _STATE_STYLES.get(one.state, "")),
                bar,
                one.model,
                "" if one.speed is None else speed_text(one.speed),
                _fault(one.failures),
                _fault(one.failovers),
                _fault(one.restarts),
                "" if one.context is None else f"{one.context:,}",
            ]
            if one.cells
            else [one.name, Span(one.state, _STATE_STYLES.get(one.state, "")), *[""] * 7]
        )
    heads, *lines = grid(columns, rows, room)
    out = [heads]
    for one, line in zip(view.upstreams, lines, strict=True):
        out.append(line)
        if one.state not in _EXPLAINED and one.reason:
            out.append(cut([Span(f"  {one.reason}", "dim")], room))
    return out


def cluster(view: View, room: int) -> list[Line]:
    """The servers that share a database, and how this one stands among them."""
    if not view.standing:
        return []
    rows: list[Sequence[Cell]] = [
        [
            one.name,
            Span(one.address, ""),
            "" if one.number is None else f"{one.number:,}",
            Span("over", "bad") if one.lease is None else f"{one.lease:.1f} s",
            Span(view.standing, _STANDING_STYLES.get(view.standing, "")) if one.here else "",
        ]
        for one in view.members
    ]
    if not any(one.here for one in view.members):  # fenced
        rows.append(["", "", "", "", Span(view.standing, _STANDING_STYLES.get(view.standing, ""))])
    columns = [
        Column("SERVER", least=8),
        Column("ADDRESS", rank=1),
        Column("LIFE", right=True, rank=2),
        Column("LEASE", right=True),
        Column("HERE"),
    ]
    return grid(columns, rows, room)


def users(view: View, room: int) -> list[Line]:
    """How much each user has under way, the busiest first."""
    rows: list[Sequence[Cell]] = [
        [
            one.name or _ANONYMOUS,
            f"{one.running:,}",
            Span(f"{one.queued:,}", "warn" if one.queued else ""),
            "" if one.served is None else f"{one.served:,.0f}",
            "" if one.weight is None else f"{one.weight:g}",
        ]
        for one in sorted(view.users, key=lambda one: (-one.queued, -one.running, one.name))
    ]
    columns = [
        Column("USER", least=8),
        Column("RUNNING", right=True),
        Column("WAITING", right=True),
        Column("SERVED", right=True, rank=1),
        Column("WEIGHT", right=True, rank=2),
    ]
    return grid(columns, rows, room) if rows else []


def queue(view: View, room: int, most: int) -> list[Line]:
    """The first requests of the queue."""
    rows: list[Sequence[Cell]] = [
        [
            f"{position if one.position is None else one.position}",
            one.user or _ANONYMOUS,
            Span(one.priority, {"high": "warn", "low": "dim"}.get(one.priority, "")),
            "" if one.waited is None else span_text(one.waited),
            "" if one.wait is None else span_text(one.wait),
            one.model,
            Span(one.reason, "dim"),
        ]
        for position, one in enumerate(view.queue[:most], 1)
    ]
    if not rows:
        return []
    columns = [
        Column("#", right=True),
        Column("USER", least=8),
        Column("PRIORITY"),
        Column("WAITED", right=True),
        Column("TO WAIT", right=True, rank=2),
        Column("MODEL", least=8, rank=1),
        Column("WHY", least=10, rank=3),
    ]
    lines = grid(columns, rows, room)
    more = max(len(view.queue), view.requests.get("queued", 0)) - len(rows)
    if more > 0:
        lines.append([Span(f"and {more:,} more", "dim")])
    return lines


def models(view: View, room: int) -> list[Line]:
    """The models, and how many of their slots are free; of those on demand, whether they are there.

    The second part is shown where any is loaded on demand: with its memory, and why it waits.
    """
    demand = any(one.presence for one in view.models)
    rows: list[Sequence[Cell]] = []
    for one in view.models:
        row: list[Cell] = [
            [Span(one.name), Span(" (default)" if one.default else "", "dim")],
            "" if one.free is None else Span(f"{one.free:,}", "" if one.free else "warn"),
            "" if one.slots is None else f"{one.slots:,}",
            "" if one.context is None else f"{one.context:,}",
            ", ".join(one.upstreams),
        ]
        if demand:
            row[1:1] = [
                Span(one.presence, _STATE_STYLES.get(one.presence, "")),
                "" if not one.memory else bytes_text(one.memory),
                Span(f"{one.waiting:,}", "warn") if one.waiting else "",
            ]
        rows.append(row)
    columns = [
        Column("MODEL", least=10),
        Column("FREE", right=True),
        Column("SLOTS", right=True),
        Column("CONTEXT", right=True, rank=1),
        Column("UPSTREAMS", least=8, rank=2),
    ]
    if demand:
        columns[1:1] = [
            Column("LOADED"),
            Column("MEMORY", right=True),
            Column("WAITING", right=True),
        ]
        columns.pop()
        rows = [row[:-1] for row in rows]
    if not rows:
        return []
    heads, *lines = grid(columns, rows, room)
    out = [heads]
    for one, line in zip(view.models, lines, strict=True):
        out.append(line)
        if one.why:
            left = "" if one.ready_in is None else f", about {span_text(one.ready_in)}"
            out.append(cut([Span(f"  {one.why}{left}", "dim")], room))
    held = [_held(view.model_memory, "memory", "memory of models")]
    held.append(_held(view.model_memory, "gpu_memory", "GPU memory of models"))
    line = _joined(held)
    return [*out, cut(line, room)] if line else out


def _held(memory: Mapping[str, int], key: str, said: str) -> tuple[str, str] | None:
    """What all models take of a kind, and the most; None where there is none of it."""
    taken, most = memory.get(key, 0), memory.get(f"{key}_limit")
    if not taken and most is None:
        return None
    return f"{said}: {bytes_text(taken)}{'' if most is None else f' of {bytes_text(most)}'}", ""


def store(view: View, room: int) -> list[Line]:
    """What is stored, and what waits to be."""
    held, analysis = view.store, view.analysis
    size = held.get("journal_bytes")
    backlog = held.get("backlog")
    parts = [
        (view.level, "") if view.level else None,
        _count("unstored", held.get("unstored"), "bad"),
        _count("backlog", backlog, "warn" if (backlog or 0) > _BACKLOG else ""),
        _count("results", held.get("results")),
        _count("to analyse", analysis.get("backlog")),
        None if size is None else (f"journal {bytes_text(size)}", ""),
        _count("journal records", held.get("journal_records")),
        _count("indexed", analysis.get("indexed")),
    ]
    line = _joined(parts)
    return [[Span("STORE", "head")], cut(line, room)] if line else []


def changes(
    found: Iterable[Change], room: int, most: int, clock: Callable[[float], str]
) -> list[Line]:
    """What happened since the screen was opened, the latest first.

    Args:
        clock: how a time is written.
    """
    latest = list(found)[: -most - 1 : -1]
    if not latest:
        return []
    lines = [[Span("RECENT", "head")]]
    for one in latest:
        line = [Span(clock(one.at), "dim"), Span(f"  {one.text}", "bad" if one.bad else "")]
        lines.append(cut(line, room))
    return lines


def snapshot(view: View, server: str, room: int, glyphs: dict[str, str]) -> list[Line]:
    """All sections, once."""
    sections = [
        title(view, server, room),
        cluster(view, room),
        upstreams(view, room, glyphs),
        models(view, room),
        users(view, room),
        queue(view, room, len(view.queue)),
        store(view, room),
    ]
    out: list[Line] = []
    for section in filter(None, sections):
        out += [[], *section] if out else section
    return out


def local_time(at: float) -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def speed_text(speed: float) -> str:
    """A speed in tokens per second."""
    return f"{speed:,.1f}" if speed < 100 else f"{speed:,.0f}"


def span_text(seconds: float) -> str:
    """A length of time, with two units at most."""
    whole = int(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            return f"{whole // size:,} {unit} {whole % size // smaller} {name}"
    return f"{whole // 60} m {whole % 60} s" if whole >= 60 else f"{whole} s"


def _bar(cells: Sequence[str], room: int, glyphs: dict[str, str]) -> Line:
    """One character per slot; where there are more slots than room, the shares of the states."""
    if len(cells) > room:
        shares: list[str] = []
        seen = 0
        for state in SLOT_STATES:
            seen += cells.count(state)
            shares += [state] * (round(seen * room / len(cells)) - len(shares))
        drawn: Sequence[str] = shares
    else:
        drawn = cells
    return [
        Span(glyphs[state] * len(list(run)), _SLOT_STYLES[state]) for state, run in groupby(drawn)
    ]


def _taken(cells: Sequence[str]) -> Span:
    """How many slots are not free, of how many."""
    return Span(f" {len(cells) - cells.count('free'):,}/{len(cells):,}")


def _count(noun: str, count: int | None, style: str = "") -> tuple[str, str] | None:
    """A figure; in its style where there is something to see."""
    return None if count is None else (f"{noun} {count:,}", style if count else "")


def _joined(parts: Iterable[tuple[str, str] | None]) -> Line:
    def spans() -> Iterator[Span]:
        for number, (text, style) in enumerate(filter(None, parts)):
            if number:
                yield Span("   ")
            yield Span(text, style)

    return list(spans())


def _fault(count: int | None) -> Cell:
    return "" if count is None else Span(f"{count:,}", "warn" if count else "dim")
