"""What was sent, with a digest of the requests themselves."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from llcuda_net.bench.record.canonical import canonical
from llcuda_net.bench.runs.settings import Request

#: Sessions over whose first requests the digest goes.
_FIRST = 64


def sent(request: Request) -> dict[str, Any]:
    """What a document says of it.

    Raises:
        ConfigError: there is no such workload, or prompts or trace cannot be used.
    """
    work = request.what.work()
    asked = [asdict(work.session(number).first()) for number in range(_FIRST)]
    how = [request.max_tokens, request.natural_ends]
    return {
        "described": work.described,
        "seed": request.seed,
        "sha256": hashlib.sha256(canonical([asked, how])).hexdigest(),
    }
