"""Lengths as they were meant and as they came, and what later turns of a session differ in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.statistics.samples import of_records
from llcuda_net.bench.statistics.summary import distribution
from llcuda_net.util.quantile import quantile

#: Most bars of a histogram.
BARS = 24
_SHARES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}


def lengths(records: Sequence[Record]) -> dict[str, Any] | None:
    """Tokens of prompts and answers of finished requests, wanted and come; None: none is known.

    Returns:
        for `prompt` and `answer`: `edges` of a histogram's bars in tokens, and `wanted` and `came`,
        each with count, mean, percentiles, least and most, and in `bars` how many lie from an edge
        to the next; None where there is none, as of answers to embeddings, or where nobody wanted
        any.
    """
    done = [record for record in records if record.done]
    found = {
        "prompt": _both([(r.wanted_prompt, r.prompt_tokens or None) for r in done]),
        "answer": _both([(r.wanted_tokens, r.tokens or None) for r in done]),
    }
    return found if any(each is not None for each in found.values()) else None


def _both(pairs: Sequence[tuple[int | None, int | None]]) -> dict[str, Any] | None:
    wanted = [want for want, _ in pairs if want is not None]
    # Beside what was wanted stands what came of the same requests.
    came = [come for want, come in pairs if come is not None and (want is not None or not wanted)]
    if not wanted and not came:
        return None
    edges = _edges([*wanted, *came])
    return {
        "edges": edges,
        "wanted": _shape(wanted, edges) if wanted else None,
        "came": _shape(came, edges) if came else None,
    }


def _edges(values: Sequence[int]) -> list[int]:
    """Edges of equal bars of whole tokens, the last beyond the greatest value."""
    low, high = min(values), max(values) + 1
    step = max(1, math.ceil((high - low) / BARS))
    return [low + i * step for i in range(math.ceil((high - low) / step) + 1)]


def _shape(values: Sequence[int], edges: Sequence[int]) -> dict[str, Any]:
    ordered = sorted(values)
    bars = [0] * (len(edges) - 1)
    for value in ordered:
        bars[(value - edges[0]) // (edges[1] - edges[0])] += 1
    return {
        "count": len(ordered),
        "mean": sum(ordered) / len(ordered),
        **{name: quantile(ordered, share) for name, share in _SHARES.items()},
        "min": ordered[0],
        "max": ordered[-1],
        "bars": bars,
    }


def sessions(
    records: Sequence[Record], repeats: Sequence[Sequence[Record]]
) -> dict[str, Any] | None:
    """How sessions went, and first turns beside later ones; None: there are no sessions.

    Args:
        records: all of the runs, each session's numbers being its own.
        repeats: those that are measured, by run.

    Returns:
        `begun`, those with a measured turn, of which `ended` whole, `broken` by a turn without an
        answer, and `open` when the time was up; and for `first` and `later` turns the requests,
        the TTFT, and the tokens of their prompts, of which `cached_tokens` came from the server's
        cache.
    """
    counted = [record for repeat in repeats for record in repeat]
    begun = {(r.path, r.number) for r in counted if r.session is not None}
    if not begun:
        return None
    ended = begun & {(r.path, r.number) for r in records if r.last}
    lost = (Outcome.REFUSED, Outcome.FAILED, Outcome.TIMEOUT)
    broken = begun & {(r.path, r.number) for r in records if r.outcome in lost}
    found: dict[str, Any] = {
        "begun": len(begun),
        "ended": len(ended),
        "broken": len(broken),
        "open": len(begun - ended - broken),
    }
    for name, later in (("first", False), ("later", True)):
        each = [
            [r for r in repeat if r.session is not None and (r.turn > 0) is later]
            for repeat in repeats
        ]
        turns = [record for repeat in each for record in repeat]
        done = [r for r in turns if r.done]
        found[name] = {
            "requests": len(turns),
            "ttft": distribution([of_records(repeat, "ttft") for repeat in each]),
            "prompt_tokens": sum(r.prompt_tokens for r in done),
            "cached_tokens": sum(r.cached_tokens for r in done),
        }
    return found
