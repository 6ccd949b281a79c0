"""Sessions of several turns: how they went, and first turns beside later ones."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report.cells import Table, estimate
from llcuda_net.bench.report.page import Section

_KEYS = ("mean", "p50", "p90", "p99")


def section(found: dict[str, Any] | None) -> list[Section]:
    """The part of a page; nothing where there are no sessions.

    Args:
        found: what `statistics.lengths.sessions` gave.
    """
    if not found:
        return []
    text = (
        f"{found['begun']:,} sessions with a measured turn: {found['ended']:,} ended,"
        f" {found['broken']:,} were broken by a turn without an answer, {found['open']:,} were open"
        " when the time was up. A later turn sends the whole conversation; it counts from the end"
        " of the answer before it plus its think time."
    )
    return [Section("First and later turns", text, tables=[table(found)])]


def table(found: dict[str, Any]) -> Table:
    """A row for first turns and one for later ones, of what there is."""
    rows = []
    for name in ("first", "later"):
        own = found[name]
        if own["requests"]:
            prompt = own["prompt_tokens"]
            cached = f"{own['cached_tokens'] / prompt:.0%}" if prompt else "-"
            cells = [estimate(own["ttft"].get(key)) for key in _KEYS]
            rows.append([f"{name} turns", f"{own['requests']:,}", *cells, cached])
    heads = ["TTFT, ms", "requests", *_KEYS, "prompt tokens from the cache"]
    kept = [i for i in range(len(heads)) if any(row[i] != "-" for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]
