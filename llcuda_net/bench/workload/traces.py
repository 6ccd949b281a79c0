"""Recorded traces with lengths: three published formats, read line by line.

azure       CSV: TIMESTAMP, ContextTokens, GeneratedTokens (Azure LLM inference traces 2023, 2024)
burstgpt    CSV: Timestamp in seconds, Request tokens, Response tokens, and more (Wang et al. 2025);
            rows without response tokens are failures, and are left out
mooncake    JSONL: timestamp in ms, input_length, output_length, and hash_ids: the prompt's blocks
            of 512 tokens, of which equal ids mean equal prefixes (Qin et al. 2025)
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path

from llcuda_net.errors import ConfigError

FORMATS = "Azure CSV, BurstGPT CSV or Mooncake JSONL"
#: Tokens of a block of a Mooncake trace.
BLOCK = 512
#: Most tokens of a prompt or answer that a line may have: more is not meant.
_MOST = 10_000_000
_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d(?:\.\d+)?)(Z|[+-]\d\d:\d\d)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of a trace.

    Attributes:
        at: seconds, from whatever the trace counts from.
        prompt, answer: tokens.
        blocks: the prompt's blocks by id; None where the trace tells none.
    """

    at: float
    prompt: int
    answer: int
    blocks: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """What was read.

    Attributes:
        kind: "azure", "burstgpt" or "mooncake".
        name: of the file.
        entries: in order of time, the first at 0; those of the window.
        left_out: rows without an answer.
        total: entries of the whole file.
    """

    kind: str
    name: str
    entries: tuple[Entry, ...]
    left_out: int
    total: int


class _WrongLineError(Exception):
    """What is wrong with a line."""


def read(path: Path, *, begin: float = 0.0, seconds: float | None = None) -> Trace:
    """The requests of a trace, or of a window of it.

    Args:
        begin: seconds after the first request at which the window begins.
        seconds: how long it is; None: to the end.

    Raises:
        ConfigError: the file cannot be read, has no such format, a line is wrong, or the window is
            empty.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            kind, found, left_out = _parse(path, file)
    except OSError as error:
        raise ConfigError(f"cannot read the trace {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the trace {path} is not UTF-8") from None
    if not found:
        raise ConfigError(f"the trace {path} holds no request")
    found.sort(key=lambda entry: entry.at)
    start = found[0].at + begin
    end = math.inf if seconds is None else start + seconds
    window = tuple(
        Entry(entry.at - start, entry.prompt, entry.answer, entry.blocks)
        for entry in found
        if start <= entry.at < end
    )
    if not window:
        length = found[-1].at - found[0].at
        raise ConfigError(
            f"no request of the trace {path} falls into that window: it is {length:,.0f} s long"
        )
    return Trace(kind, path.name, window, left_out, len(found))


def _parse(path: Path, lines: Iterable[str]) -> tuple[str, list[Entry], int]:
    numbered: Iterator[tuple[int, str]]
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    begun = next(numbered, (0, ""))
    head = [name.strip().lower() for name in begun[1].split(",")]
    entry_of: Callable[[str], Entry]
    if begun[1].lstrip().startswith("{"):
        kind, entry_of = "mooncake", _mooncake
        numbered = chain([begun], numbered)
    elif {"timestamp", "contexttokens", "generatedtokens"} <= set(head):
        kind, entry_of = "azure", _reader(head, _azure)
    elif {"timestamp", "request tokens", "response tokens"} <= set(head):
        kind, entry_of = "burstgpt", _reader(head, _burstgpt)
    else:
        raise ConfigError(f"{path} is no trace with lengths: it must be {FORMATS}")
    entries: list[Entry] = []
    left_out = 0
    for number, line in numbered:
        try:
            entry = entry_of(line)
        except _WrongLineError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from None
        if entry.answer > 0:
            entries.append(entry)
        else:
            left_out += 1
    return kind, entries, left_out


def _reader(head: list[str], make: Callable[[dict[str, str]], Entry]) -> Callable[[str], Entry]:
    """What reads a line of a CSV with these columns."""

    def read_line(line: str) -> Entry:
        try:
            cells = next(csv.reader([line], strict=True))
        except (csv.Error, StopIteration):
            raise _WrongLineError("it is no line of a CSV") from None
        if len(cells) != len(head):
            raise _WrongLineError(f"it has {len(cells)} columns, and the head {len(head)}")
        return make(dict(zip(head, (cell.strip() for cell in cells), strict=True)))

    return read_line


def _azure(row: dict[str, str]) -> Entry:
    return Entry(
        _moment(row["timestamp"]),
        _tokens(row["contexttokens"], "ContextTokens"),
        _tokens(row["generatedtokens"], "GeneratedTokens"),
    )


def _burstgpt(row: dict[str, str]) -> Entry:
    return Entry(
        _seconds(row["timestamp"], "Timestamp"),
        _tokens(row["request tokens"], "Request tokens"),
        _tokens(row["response tokens"], "Response tokens"),
    )


def _mooncake(line: str) -> Entry:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _WrongLineError("it is no JSON object")
    prompt = _tokens(found.get("input_length"), "input_length")
    blocks = found.get("hash_ids")
    if blocks is not None:
        if not isinstance(blocks, list) or not all(type(each) is int for each in blocks):
            raise _WrongLineError("hash_ids is no list of whole numbers")
        if len(blocks) != math.ceil(prompt / BLOCK):
            raise _WrongLineError(
                f"{len(blocks)} hash_ids do not make {prompt} tokens in blocks of {BLOCK}"
            )
    return Entry(
        _seconds(found.get("timestamp"), "timestamp") / 1e3,
        prompt,
        _tokens(found.get("output_length"), "output_length"),
        None if blocks is None else tuple(blocks),
    )


def _moment(text: str) -> float:
    """Seconds of a date and time; without an offset it is taken for UTC."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise _WrongLineError(f"TIMESTAMP {text[:40]!r} is no date and time")
    year, month, day, hour, minute = (int(part) for part in match.groups()[:5])
    try:
        days = date(year, month, day).toordinal()
    except ValueError:
        raise _WrongLineError(f"TIMESTAMP {text[:40]!r} is no date and time") from None
    offset = 0
    if match[7] not in (None, "Z"):
        offset = (int(match[7][1:3]) * 60 + int(match[7][4:])) * (-1 if match[7][0] == "-" else 1)
    return days * 86_400.0 + (hour * 60 + minute - offset) * 60 + float(match[6])


def _seconds(value: object, name: str) -> float:
    try:
        found = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not (math.isfinite(found) and 0 <= found < 1e15):
        raise _WrongLineError(f"{name} {str(value)[:40]!r} is no time")
    return found


def _tokens(value: object, name: str) -> int:
    try:
        found = float(value)  # type: ignore[arg-type]  # BurstGPT has some counts as 12.0
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, bool) or not 0 <= found <= _MOST or found != int(found):
        raise _WrongLineError(f"{name} {str(value)[:40]!r} is no number of tokens")
    return int(found)
