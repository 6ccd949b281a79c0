"""What a job came to: for people on stderr, or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llcuda_net.batch.distributor import WorkQueue
from llcuda_net.batch.input import Input
from llcuda_net.batch.job import Done
from llcuda_net.errors import ConfigError
from llcuda_net.util.numbers import three_digits
from llcuda_net.util.quantile import percentiles_ms

FORMAT = "llcuda-batch"
#: Grows when a program that reads the documents would have to be changed.
VERSION = 2


def document(
    queue: WorkQueue,
    done: Done,
    ranks: int,
    errors: int,
    given: Input,
    settings: dict[str, Any],
    base: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """For JSON.

    `occupancy` is the share of the request slots in use: the time of all requests together, divided
    by every rank's --inflight times the length of the job. It says nothing of what ranks bring: a
    server that is slower for many keeps all of them waiting. That is `speedup`, the tokens/s as a
    multiple of the base's, and its share of what as many times the ranks could bring.

    Args:
        errors: lines that had an error before, which stays.
        given: the input, after it was read.
        settings: what the work was, for comparisons.
        base: the document of the job that this one is compared with.
    """
    seconds = max(1e-9, done.seconds)
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "ranks": ranks,
        "seconds": round(done.seconds, 3),
        "written": queue.done,
        "failed": queue.failed,
        "already_there": queue.skipped,
        "errors_there": errors,
        "left": done.stranded,
        "tokens": done.tally.tokens,
        "tokens_per_s": round(done.tally.tokens / seconds, 3),
        "answers_per_s": round(done.tally.answers / seconds, 3),
        "occupancy": round(done.tally.busy / (seconds * done.capacity), 4),
        "ttft_ms": percentiles_ms(done.tally.ttft),
        "latency_ms": percentiles_ms(done.tally.latency),
        "repeated_ids": given.repeated,
        "first_repeated_id": given.first_repeated,
        "notes": done.notes,
        "problems": queue.problems,
        "settings": {**settings, "lines": given.count},
    }
    found["base"] = None if base is None else _against(base, found)
    return found


def read_base(path: Path) -> dict[str, Any]:
    """An earlier job's document, to compare with.

    Raises:
        ConfigError: it cannot be read, is no such document, or says no tokens/s.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError(f"{path} is not what --json prints")
    if found.get("version") != VERSION:
        raise ConfigError(f"{path} is of version {found.get('version')}, and {VERSION} is needed")
    try:
        usable = found["tokens_per_s"] > 0 and found["ranks"] > 0 and dict(found["settings"])
    except (KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(f"{path} is of a job that got no tokens: it is no base")
    return found


def _against(base: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What a job brought, measured by another one."""
    speedup = found["tokens_per_s"] / base["tokens_per_s"]
    mine, its = found["settings"], base["settings"]
    return {
        "ranks": base["ranks"],
        "tokens_per_s": base["tokens_per_s"],
        "speedup": round(speedup, 4),
        "efficiency": round(speedup * base["ranks"] / found["ranks"], 4),
        "differs": sorted(name for name in {*mine, *its} if mine.get(name) != its.get(name)),
    }


def _ranks(count: int) -> str:
    return f"{count} rank{'' if count == 1 else 's'}"


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    already = f", {found['already_there']:,} were there" if found["already_there"] else ""
    if found["errors_there"]:
        already += f" ({found['errors_there']:,} of them errors)"
    ranks = _ranks(found["ranks"])
    out = [
        f"{found['written']:,} results written in {found['seconds']:.1f} s by {ranks}{already}",
    ]
    if found["tokens"]:
        rate = three_digits(found["tokens_per_s"])
        out.append(
            f"{found['tokens']:,} tokens: {rate}/s by the wall clock;"
            f" occupancy {found['occupancy']:.0%} (of all --inflight, the share in use)"
        )
        out += _compared(found)
    for name, title in (("ttft_ms", "first token"), ("latency_ms", "whole answer")):
        known = [f"{key} {three_digits(v)}" for key, v in found[name].items() if v is not None]
        if known:
            out.append(f"{title}, ms: {', '.join(known)}")
    if found["repeated_ids"]:
        line, earlier = found["first_repeated_id"]
        out.append(
            f"note: {found['repeated_ids']:,} of the lines have the id of an earlier line (line"
            f" {line} has that of line {earlier}): tell their results apart by `line`"
        )
    for problem in found["problems"][:10]:
        out.append(f"failed: {problem}")
    if found["failed"] > 10:
        out.append(f"failed: {found['failed'] - 10} more; the output has each with its error")
    return out


def _compared(found: dict[str, Any]) -> list[str]:
    """What the ranks brought, in words."""
    base = found["base"]
    if base is None:
        return []
    slower = ", slower" if base["speedup"] < 1 else ""
    rate = f"{three_digits(base['tokens_per_s'])}/s of {_ranks(base['ranks'])}"
    speedup = f"speedup {base['speedup']:.2f}{slower}, against {rate} (one run each)"
    out = [f"{speedup}; efficiency {base['efficiency']:.0%}"]
    if base["differs"]:
        names = ", ".join(base["differs"])
        out.append(f"note: the base is of other work ({names} differ): the speedup is of both")
    return out
