"""The figures again, from every request's times: does the document say what its requests say?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from llcuda_net.batch.record import DIRECT, Record, measured, outcomes
from llcuda_net.bench.statistics.samples import of_records
from llcuda_net.bench.statistics.summary import distribution, headline, phases, rates, summarise

#: Relative difference of floating-point numbers that may come out on another machine.
_SAME = 1e-9
#: Lines about one document.
_MOST = 20
#: Of a load of a sweep, what is computed again.
_STEP = ("ttft", "tpot", "latency")


def differences(document: dict[str, Any], records: Sequence[Sequence[Record]]) -> list[str]:
    """Where the figures of a document are not those of its requests: one line each.

    Args:
        records: of each run, as `requests.read` gave them.
    """
    found: list[str] = []
    for where, said, computed in _figures(document, records):
        found += _unlike(where, said, computed)
    return found[:_MOST]


def _figures(
    document: dict[str, Any], records: Sequence[Sequence[Record]]
) -> Iterator[tuple[str, Any, Any]]:
    """(where, what the document says, what the requests say) of each figure."""
    runs = document["requests"]["runs"]
    for run, own in zip(runs, records, strict=True):
        yield f"requests/runs/{run['run']}/count", run["count"], len(own)
    by_kind: dict[tuple[str, float | None], list[int]] = {}
    for place, run in enumerate(runs):
        by_kind.setdefault((run["kind"], run["load"]), []).append(place)
    if document["measurement"] == "latency":
        repeats = [records[place] for place in by_kind.get(("run", None), ())]
        before = [records[place] for place in by_kind.get(("rehearsal", None), ())]
        yield from _latency(document, repeats, before[0] if before else ())
        closed = document["settings"]["schedule"]["kind"] == "closed"
        for number, place in enumerate(by_kind.get(("run", None), ())):
            window = runs[place]["begin"], runs[place]["end"]
            computed = rates(records[place], *window, closed=closed)
            yield f"rates/{number}", document["rates"][number], computed
        return
    for kind in ("concurrency", "rates"):
        for row in document[kind]:
            places = by_kind.get((kind, row["load"]), [])
            repeats = [records[place] for place in places]
            windows = [(runs[place]["begin"], runs[place]["end"]) for place in places]
            yield from _step(document, kind, row, repeats, windows)


def _latency(
    document: dict[str, Any], repeats: Sequence[Sequence[Record]], before: Sequence[Record]
) -> Iterator[tuple[str, Any, Any]]:
    for path, summary in document["paths"].items():
        computed = summarise(
            [measured(repeat, path) for repeat in repeats], rehearsal=measured(before, path)
        )
        yield f"paths/{path}", {name: summary.get(name) for name in computed}, computed
        each = [headline(measured(repeat, path)) for repeat in repeats]
        for name in each[0] if each else ():
            key = f"{name}, direct" if path == DIRECT else name
            if all(name in one for one in each):
                said = document["repetitions"].get(key)
                yield f"repetitions/{key}", said, [one[name] for one in each]


def _step(
    document: dict[str, Any],
    kind: str,
    row: dict[str, Any],
    repeats: Sequence[Sequence[Record]],
    windows: Sequence[tuple[float, float]],
) -> Iterator[tuple[str, Any, Any]]:
    where = f"{kind}/{row['load']}"
    counted = [measured(repeat) for repeat in repeats]
    yield f"{where}/outcomes", row["outcomes"], outcomes(r for each in counted for r in each)
    yield f"{where}/phases", row["phases"], phases(counted)
    for name in _STEP:
        computed = distribution([of_records(each, name) for each in counted])
        computed.pop("histogram", None)
        yield f"{where}/metrics/{name}", row["metrics"][name], computed
    if kind == "concurrency":
        each = [
            rates(records, *window, closed=True)
            for records, window in zip(repeats, windows, strict=True)
        ]
        for name in ("tokens_per_s", "requests_per_s"):
            key = f"{name} at {_shown(row['load'])}"
            said = document["repetitions"].get(key)
            if said is not None:
                yield f"repetitions/{key}", said, [one[name]["value"] for one in each]


def _shown(load: float) -> str:
    return f"{load:.6f}".rstrip("0").rstrip(".")


def _unlike(where: str, said: Any, computed: Any) -> Iterator[str]:
    """Where two JSON values differ by more than the last digits."""
    if isinstance(said, dict) and isinstance(computed, dict):
        for name in dict.fromkeys([*said, *computed]):
            yield from _unlike(f"{where}/{name}", said.get(name), computed.get(name))
    elif isinstance(said, list) and isinstance(computed, (list, tuple)):
        if len(said) != len(computed):
            yield f"{where}: {len(said)} values, and the requests give {len(computed)}"
            return
        for place, (a, b) in enumerate(zip(said, computed, strict=True)):
            yield from _unlike(f"{where}/{place}", a, b)
    elif isinstance(said, (int, float)) and isinstance(computed, (int, float)):
        if not math.isclose(said, computed, rel_tol=_SAME, abs_tol=_SAME):
            yield f"{where}: {said!r}, and the requests give {float(computed)!r}"
    elif said != computed:
        yield f"{where}: {_short(said)}, and the requests give {_short(computed)}"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
