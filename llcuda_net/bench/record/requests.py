"""Every request's times: JSON lines with all that is known, or CSV for spreadsheets.

A line of JSON has `run` (its number, see `requests.runs` in the document) and the members of
`batch.record.Record`, times in seconds since the run's start; null is what never came. From these
lines the figures can be computed again (`recompute`). CSV has the first and the last chunk instead
of all, and the times that follow from them in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from llcuda_net.batch.record import METRICS, Outcome, Record
from llcuda_net.bench.record.privacy import Scrubber
from llcuda_net.errors import ConfigError
from llcuda_net.util.csv_lines import csv_line

_FIELDS = fields(Record)
#: Fields that are no number where they are not known.
_TIMES = frozenset({"intended", "sent", "ended"})
_DERIVED = ("ttft", "tpot", "latency", "service_ttft", "service", "lag")


@dataclass(frozen=True, slots=True)
class Part:
    """One run, and which load it was of.

    Attributes:
        kind: "run" of a latency; "concurrency" or "rates" of a sweep.
        load: of a sweep.
        begin, end: of the measuring window, seconds since the run's start.
    """

    kind: str
    load: float | None
    begin: float
    end: float
    records: Sequence[Record]


def write(path: Path, parts: Sequence[Part], scrubber: Scrubber) -> dict[str, Any]:
    """Write a file, by its ending: .jsonl or .csv.

    Returns:
        what the document says of it.

    Raises:
        ConfigError: it has another ending, or cannot be written.
    """
    lines = _csv(parts, scrubber) if form(path) == ".csv" else _json(parts, scrubber)
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for line in lines:
                data = line.encode()
                digest.update(data)
                file.write(data)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
    return {
        "file": path.name,
        "sha256": digest.hexdigest(),
        "count": sum(len(part.records) for part in parts),
        "runs": [
            {
                "run": number,
                "kind": part.kind,
                "load": part.load,
                "begin": part.begin,
                "end": part.end,
                "count": len(part.records),
            }
            for number, part in enumerate(parts, 1)
        ],
    }


def form(path: Path) -> str:
    """The ending of a file of requests.

    Raises:
        ConfigError: it is neither .jsonl nor .csv.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise ConfigError(f"--requests writes .jsonl or .csv, not {path.name!r}")
    return path.suffix


def _json(parts: Sequence[Part], scrubber: Scrubber) -> Iterator[str]:
    for number, part in enumerate(parts, 1):
        for record in part.records:
            line = {"run": number, **as_dict(record)}
            line["error"] = scrubber.text(line["error"])
            yield json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n"


def as_dict(record: Record) -> dict[str, Any]:
    """A record as a line has it."""
    found: dict[str, Any] = {}
    for each in _FIELDS:
        value = getattr(record, each.name)
        if isinstance(value, float) and math.isnan(value):
            value = None
        found[each.name] = list(value) if isinstance(value, array) else value
    return found


def _csv(parts: Sequence[Part], scrubber: Scrubber) -> Iterator[str]:
    plain = [each.name for each in _FIELDS if each.name not in ("chunks", "phases", "error")]
    ends = ["chunks", "first_chunk", "last_chunk"]
    yield csv_line(
        ["run", "kind", "load", *plain, *ends, *(f"{name}_ms" for name in _DERIVED), "error"]
    )
    for number, part in enumerate(parts, 1):
        for record in part.records:
            told = as_dict(record)
            times: list[Any] = [METRICS[name][1](record) for name in _DERIVED]
            yield csv_line(
                [
                    *(number, part.kind, part.load),
                    *(told[name] for name in plain),
                    len(record.chunks),
                    *((record.chunks[0], record.chunks[-1]) if record.chunks else (None, None)),
                    *(None if t is None or math.isnan(t) else t * 1e3 for t in times),
                    scrubber.text(record.error),
                ]
            )


def read(path: Path, digest: str, runs: Sequence[Mapping[str, Any]]) -> list[list[Record]]:
    """The records of a .jsonl file, by run.

    Args:
        digest: of its bytes, as the document says.
        runs: as the document says.

    Raises:
        ConfigError: the file cannot be read, or is not the one that was written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise ConfigError(f"{path} is not what was written with the document: another SHA-256")
    found: list[list[Record]] = [[] for _ in runs]
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        try:
            told = json.loads(line)
            found[told.pop("run") - 1].append(of_dict(told))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ConfigError(f"{path}, line {number}: no request of a record") from None
    return found


def of_dict(told: Mapping[str, Any]) -> Record:
    """The inverse of `as_dict`.

    Raises:
        ValueError, TypeError, LookupError: it is none.
    """
    known: dict[str, Any] = {}
    for each in _FIELDS:
        if each.name not in told:
            if each.default is MISSING and each.default_factory is MISSING:
                raise LookupError(each.name)
            continue
        value = told[each.name]
        if value is None and each.name in _TIMES:
            value = math.nan
        elif each.name == "chunks":
            value = array("d", value)
        elif each.name == "outcome":
            value = Outcome(value)
        known[each.name] = value
    return Record(**known)


def parts_of(kind: str, load: float | None, runs: Iterable[Any]) -> list[Part]:
    """The parts of several runs (`runs.once.Once`) of one load."""
    return [Part(kind, load, run.begin, run.end, run.records) for run in runs]
