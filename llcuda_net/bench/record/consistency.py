"""Whether a document agrees with itself, beyond what a schema can say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from llcuda_net.bench.histogram import Histogram
from llcuda_net.util.quantile import PERCENTILES

#: Lines about one document.
_MOST = 20
#: Differences of the last digits are none.
_SLACK = 1e-9


def contradictions(document: dict[str, Any]) -> list[str]:
    """What cannot be so together: one line each, the first ones."""
    return list(_all(document))[:_MOST]


def _all(document: dict[str, Any]) -> Iterator[str]:
    for where, one in _objects(document, ""):
        if "unknown" in one:
            yield from _unknown(where, one)
        if "value" in one and "low" in one:
            yield from _estimate(where, one)
        if one.get("unit") == "ms" and "count" in one:
            yield from _distribution(where, one)
        if "outcomes" in one and "requests" in one:
            total = sum(one["outcomes"].values())
            if total != one["requests"]:
                yield f"{where}: {one['requests']} requests, and {total} outcomes"
    try:
        datetime.fromisoformat(document["when"])
    except ValueError:
        yield f"when: {document['when']!r} is no time"
    lengths = {len(values) for values in document["repetitions"].values()}
    if document["measurement"] == "latency":
        if len(lengths) > 1:
            yield f"repetitions: some figures have {min(lengths)}, others {max(lengths)}"
        done = sum(path["outcomes"]["done"] for path in document["paths"].values())
        if done != len(document["timeline"]):
            yield f"timeline: {len(document['timeline'])} answers, and {done} are done"
    requests = document.get("requests")
    if requests is not None:
        total = sum(run["count"] for run in requests["runs"])
        if total != requests["count"]:
            yield f"requests: {requests['count']}, and {total} in its runs"
    for kind in ("concurrency", "rates", "rows"):
        for row in document.get(kind, ()):
            if row.get("problems") and not document["problems"]:
                yield f"{kind}: a load does not count, and the whole does"


def _objects(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects, with where they are."""
    if isinstance(value, dict):
        yield where or "the document", value
        for name, one in value.items():
            yield from _objects(one, f"{where}/{name}".strip("/"))
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from _objects(one, f"{where}/{place}".strip("/"))


def _unknown(where: str, one: dict[str, Any]) -> Iterator[str]:
    """Each null has its reason, and nothing else has one."""
    nulls = {name for name, value in one.items() if value is None}
    if isinstance(one.get("model"), dict):
        nulls |= {f"model.{name}" for name, value in one["model"].items() if value is None}
    for name in sorted(nulls - set(one["unknown"])):
        yield f"{where}: {name} is null, and nothing says why"
    for name in sorted(set(one["unknown"]) - nulls):
        yield f"{where}: {name} is said to be unknown, and is not null"


def _estimate(where: str, one: dict[str, Any]) -> Iterator[str]:
    low, value, high = one["low"], one["value"], one.get("high")
    if low is None or high is None:
        if low is not high:
            yield f"{where}: an interval with one end"
    elif low > high:
        yield f"{where}: an interval from {low} to {high}"
    elif not low - _slack(value) <= value <= high + _slack(value):
        yield f"{where}: {value} is not in its interval"


def _slack(value: float) -> float:
    return _SLACK * (1 + abs(value))


def _distribution(where: str, one: dict[str, Any]) -> Iterator[str]:
    known = [one[name]["value"] for name in PERCENTILES if one.get(name) is not None]
    # That of censored values may be beyond the longest that is known.
    ends = [one["max"]] if "max" in one and not one.get("cut") else []
    ordered = [*known, *ends]
    if any(b < a - _slack(a) for a, b in pairwise(ordered)):
        yield f"{where}: its percentiles do not rise"
    if "histogram" in one:
        try:
            count = len(Histogram.decode(one["histogram"]))
        except ValueError:
            yield f"{where}: its histogram cannot be read"
            return
        if count != one["count"]:
            yield f"{where}: {one['count']} values, and {count} in its histogram"
