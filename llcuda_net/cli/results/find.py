"""`llcuda results list` and `search`, and finding a result by the beginning of its id."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.json_documents import line, summary
from llcuda_net.cli.results.command import query_of
from llcuda_net.cli.tables import id_cell, table
from llcuda_net.cli.units import counted, local
from llcuda_net.storage.results.interface import (
    DAMAGED,
    Hit,
    Query,
    Store,
    Summary,
)
from llcuda_net.storage.words import highlights, marked_parts
from llcuda_net.util.terminal import echo, is_terminal, one_line, paint, wants_colour

#: What to do about damaged results.
NAMED = "`llcuda results verify` names them"
_HEADS = ("id", "created", "state", "tokens", "model", "prompt")


def list_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results list`."""
    query = query_of(arguments)
    found = store.walk(query, arguments.text)
    if arguments.text is not None:
        _warn_unindexed(store)
    if arguments.json:
        damaged = Damaged()
        for one in damaged.seen(islice(found, query.limit)):
            echo(line(summary(one)))
        return damaged.report()
    damaged = Damaged()
    shown = damaged.seen(islice(found, query.limit))
    first = next(shown, None)
    if first is None:
        echo("no results match", file=sys.stderr)
        return Exit.OK
    for text in table(_HEADS, map(_row, _with(first, shown)), right=frozenset({3})):
        echo(text, styled=True)
    if is_terminal(sys.stdout) and next(found, None) is not None:
        echo(f"there are more than these {query.limit}: see --limit", file=sys.stderr)
    return damaged.report()


class Damaged:
    """Counts the damaged ones among results that are listed."""

    def __init__(self) -> None:
        self.count = 0

    def __repr__(self) -> str:
        return f"<Damaged {self.count}>"

    def seen(self, found: Iterable[Summary]) -> Iterator[Summary]:
        """The same results."""
        for one in found:
            self.count += one.state == DAMAGED
            yield one

    def report(self) -> int:
        """Say how many there were; returns the command's exit code."""
        if not self.count:
            return Exit.OK
        echo(f"{counted(self.count, 'result')} damaged: {NAMED}", file=sys.stderr)
        return Exit.REFUSED


def _with(first: Summary, others: Iterable[Summary]) -> Iterator[Summary]:
    yield first
    yield from others


def _row(found: Summary) -> tuple[str, ...]:
    return (
        id_cell(found.id),
        local(found.created),
        found.state,
        f"{found.tokens:,}",
        found.model,
        found.preview,
    )


def search_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results search`."""
    hits = store.search(" ".join(arguments.words), query_of(arguments))
    _warn_unindexed(store)
    if hits and hits[0].of_newest is not None:
        among = f"{hits[0].of_newest:,}"
        echo(f"the best of the newest {among}, but more match: see --limit 0", file=sys.stderr)
    damaged = Damaged()
    for _ in damaged.seen(hit.summary for hit in hits):
        pass
    if arguments.json:
        for hit in hits:
            echo(line(_document(hit)))
        return damaged.report()
    for number, hit in enumerate(hits):
        found = hit.summary
        head = f"{id_cell(found.id)}  {local(found.created)}  {found.state}  {found.model}"
        echo(("\n" if number else "") + paint(one_line(head), "2", sys.stdout), styled=True)
        for name, excerpt in (("prompt", hit.prompt), ("text", hit.text)):
            if excerpt:
                echo(f"  {name:<6}  {_painted(excerpt)}", styled=True)
    if not hits:
        echo("no results match", file=sys.stderr)
    return damaged.report()


def _warn_unindexed(store: Store) -> None:
    if behind := store.unindexed():
        echo(
            f"not found yet: {counted(behind, 'result')} that llcuda-server has still to index",
            file=sys.stderr,
        )


def _document(hit: Hit) -> dict[str, object]:
    out: dict[str, object] = {**summary(hit.summary), "score": hit.score}
    out["of_newest"] = hit.of_newest
    for name, excerpt in (("prompt", hit.prompt), ("text", hit.text)):
        plain, spans = highlights(excerpt)
        out[name] = {"excerpt": plain, "highlights": spans}
    return out


def _painted(excerpt: str) -> str:
    """On one line; matches in colour, or between stars where there is no colour."""
    left, right = ("\x1b[1;33m", "\x1b[0m") if wants_colour(sys.stdout) else ("*", "*")
    out = ""
    for part, marked in marked_parts(excerpt):
        text = one_line(part)
        out += f"{left}{text}{right}" if marked and text else text
    return " ".join(out.split())


#: What stands for the id of the newest result.
LAST = "last"

# -- by the beginning of an id ----------------------------------------------------------------


def whole_id(store: Store, given: str) -> str:
    """The id of the one result whose id is this, or begins so; `last`: of the newest.

    Raises:
        CommandError: there is none, or more than one.
    """
    if store.find(Query(id=given, limit=1)):
        return given
    begin = given.strip().lower()
    if not begin:
        fail("the id is empty")
    if begin == LAST:
        newest = store.find(Query(limit=1))
        return newest[0].id if newest else fail("nothing is stored yet", Exit.REFUSED)
    found: list[str] = []
    for query in _where(begin):
        for one in store.walk(query):
            if one.id.lower().startswith(begin):
                found.append(one.id)
        if found:
            break
    if not found:
        fail(f"there is no result {one_line(given)!r}", Exit.REFUSED)
    if len(found) > 1:
        some = ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
        fail(f"{len(found)} results begin with {one_line(given)!r}: {some}: give more of the id")
    return found[0]


def _where(begin: str) -> Iterator[Query]:
    """Where to look for it: near the time that a UUIDv7 begins with, and then everywhere."""
    digits = begin.replace("-", "")[:12]
    try:
        low = int(digits.ljust(12, "0"), 16) * 10**6
        high = int(digits.ljust(12, "f"), 16) * 10**6
    except ValueError:
        pass
    else:
        minute, last = 60 * 10**9, 2**63 - 1
        if low < last:
            yield Query(since=max(0, low - minute), until=min(last, high + minute))
    yield Query()
