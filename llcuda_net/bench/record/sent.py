"""What was sent, by name and by a digest of the requests themselves."""

from __future__ import annotations

import hashlib
from typing import Any

from llcuda_net.bench.record.canonical import canonical
from llcuda_net.bench.runs.settings import Request
from llcuda_net.bench.workload import prompts

#: Requests over which the digest goes.
_FIRST = 512


def sent(request: Request) -> dict[str, Any]:
    """What a document says of it.

    Raises:
        ConfigError: the prompts are wrong.
    """
    found = prompts.parse(request.prompts, seed=request.seed)
    asked = [found[number] for number in range(min(_FIRST, len(found)))]
    params = {k: v for k, v in request.params.items() if k not in ("seed", "cache_prompt")}
    return {
        "described": found.described,
        "seed": request.seed,
        "sha256": hashlib.sha256(canonical([asked, params])).hexdigest(),
    }
