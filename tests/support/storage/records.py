"""Results and requests to store, each a function of its number."""

from __future__ import annotations

import random
from typing import Any

from llcuda_net.storage.records import Opened, Result, TokenLog, hash_of

MODEL: dict[str, Any] = {"name": "demo", "size": 3_000_000, "build_info": "b1"}
START = 1_700_000_000 * 10**9
SECOND = 10**9


def opened(number: int, **changes: Any) -> Opened:
    fields: dict[str, Any] = {
        "generation": f"generation-{number}",
        "request": {"prompt": f"prompt {number}", "params": {"seed": number}},
        "created": START + number * SECOND,
    }
    return Opened(**{**fields, **changes})


def result(number: int, tokens: int = 8, **changes: Any) -> Result:
    rng = random.Random(number)
    fields: dict[str, Any] = {
        "id": f"result-{number:06d}",
        "state": "done",
        "created": START + number * SECOND,
        "finished": START + number * SECOND + 5,
        "request": {"prompt": f"What is number {number}?", "params": {"seed": number}},
        "log": TokenLog(
            [f" word{rng.randrange(1000)}" for _ in range(tokens)],
            [rng.randrange(32_000) if rng.random() < 0.9 else None for _ in range(tokens)],
        ),
        "reason": "stop",
        "usage": {"completion_tokens": tokens, "prompt_tokens": 5},
        "timings": {"queue": 0.1, "total": 12.5},
        "model": MODEL,
        "upstream": "http://127.0.0.1:8080",
        "seed": number,
        "request_hash": hash_of(number),
        "cacheable": True,
    }
    return Result(**{**fields, **changes})
