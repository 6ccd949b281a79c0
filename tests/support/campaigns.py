"""Jobs of a campaign, results that a store should hold for them, and a campaign in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llcuda_net.client.stream import Piece
from llcuda_net.storage.records import Level, TokenLog
from llcuda_net.storage.records import Result as Stored
from tools.campaign.jobs import Job


def job(kind: str = "read", count: int = 4, **ask: Any) -> Job:
    pieces = tuple(Piece(n, f" {n}", 1000 + n) for n in range(count))
    return Job(kind, "plain", ask, pieces, "length", None, count, 3)


def result(ask: Job, **changes: Any) -> Stored:
    usage = {"completion_tokens": ask.tokens, "prompt_tokens": ask.prompt_tokens}
    log = TokenLog([p.text for p in ask.pieces], [p.id for p in ask.pieces])
    fields: dict[str, Any] = {"id": "id", "state": "done", "created": 1, "finished": 2, "log": log}
    fields |= {"reason": "length", "usage": usage, "level": Level.DISK}
    return Stored(**{**fields, **changes})


def conducted(main: Callable[[list[str]], int], file: Path, *arguments: str) -> tuple[int, Any]:
    """A campaign's exit code and its JSON."""
    code = main([*arguments, "--json", str(file)])
    return code, json.loads(file.read_text("utf-8"))


def long_enough(
    lengths: Sequence[str], run: Callable[[str], tuple[int, Any]], enough: Callable[[Any], bool]
) -> tuple[int, Any]:
    """A campaign as short as this machine allows today: the first in which enough happened.

    Args:
        lengths: how long it may be, as its option says it, the shortest first.
        run: runs it so long, in a folder of its own.
        enough: of its JSON. What the last one found is returned in any case.
    """
    for length in lengths:
        code, found = run(length)
        if enough(found):
            break
    return code, found
