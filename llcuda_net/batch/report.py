"""What a job came to: for people on stderr, or as JSON."""

from __future__ import annotations

from typing import Any

from llcuda_net.batch.distributor import WorkQueue
from llcuda_net.batch.input import Input
from llcuda_net.batch.job import Done
from llcuda_net.util.numbers import three_digits


def document(queue: WorkQueue, done: Done, ranks: int, errors: int, given: Input) -> dict[str, Any]:
    """For JSON.

    `efficiency` is the share of the request slots in use: the time of all requests together,
    divided by every rank's --inflight times the length of the job.

    Args:
        errors: lines that had an error before, which stays.
        given: the input, after it was read.
    """
    seconds = max(1e-9, done.seconds)
    return {
        "format": "llcuda-batch",
        "version": 1,
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
        "efficiency": round(done.tally.busy / (seconds * done.capacity), 4),
        "ttft_ms": done.tally.ttft.percentiles_ms(),
        "latency_ms": done.tally.latency.percentiles_ms(),
        "repeated_ids": given.repeated,
        "first_repeated_id": given.first_repeated,
        "notes": done.notes,
        "problems": queue.problems,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    already = f", {found['already_there']:,} were there" if found["already_there"] else ""
    if found["errors_there"]:
        already += f" ({found['errors_there']:,} of them errors)"
    ranks = f"{found['ranks']} rank{'' if found['ranks'] == 1 else 's'}"
    out = [
        f"{found['written']:,} results written in {found['seconds']:.1f} s by {ranks}{already}",
    ]
    if found["tokens"]:
        rate = three_digits(found["tokens_per_s"])
        out.append(
            f"{found['tokens']:,} tokens: {rate}/s by the wall clock;"
            f" efficiency {found['efficiency']:.0%} (of all --inflight, the share in use)"
        )
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
