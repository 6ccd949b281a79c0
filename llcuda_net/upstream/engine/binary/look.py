"""What a llama-server that has just loaded its model can do, and no option says: it is asked.

Builds differ in two things. Grammars are checked by llguidance or by llama.cpp's own parser, which
knows less of JSON schemas. And builds of 2024 and 2025 complete nothing once they may embed. One
request for one token tells both.
"""

from __future__ import annotations

from dataclasses import dataclass

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import RequestError, UpstreamUnavailable
from llcuda_net.upstream.llama.transport.origin import Origin

LLGUIDANCE, GBNF = "llguidance", "gbnf"

_TIMEOUT = 60.0
_REQUEST = {
    "prompt": "a",
    "n_predict": 1,
    "cache_prompt": False,
    "grammar": '%llguidance {}\nstart: "a"\n',
}
_NO_COMPLETIONS = "does not support completions"


@dataclass(frozen=True, slots=True)
class Ability:
    """What it can do.

    Attributes:
        completes: whether it completes at all.
        schema_engine: what checks grammars and schemas; None: not known.
    """

    completes: bool
    schema_engine: str | None


async def look(url: str, api_key: str) -> Ability:
    """Ask a llama-server that is healthy."""
    origin = Origin(BaseUrl.parse(url), api_key)
    try:
        await origin.ask("POST", "/completion", bytes, _REQUEST, timeout=_TIMEOUT)
    except UpstreamUnavailable:
        return Ability(completes=True, schema_engine=None)  # it is gone, or slow: judged later
    except RequestError as error:
        if _NO_COMPLETIONS in error.message:
            return Ability(completes=False, schema_engine=None)
        return Ability(completes=True, schema_engine=GBNF if "grammar" in error.message else None)
    finally:
        await origin.aclose()
    return Ability(completes=True, schema_engine=LLGUIDANCE)
