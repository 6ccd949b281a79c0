"""Asks a server with an HTTP API what it says of itself."""

from __future__ import annotations

from typing import Any

import msgspec

from llcuda_net.batch.targets.facts import JsonOf
from llcuda_net.errors import RequestError
from llcuda_net.upstream.llama.transport.origin import Origin

#: Seconds for each answer.
_TIMEOUT = 5.0


def asking(origin: Origin) -> JsonOf:
    """Asks a server: what it refuses, or answers with anything but an object, is not told."""

    async def ask(path: str, body: Any) -> dict[str, Any]:
        try:
            status, _, content = await origin.get(
                "GET" if body is None else "POST", path, body, timeout=_TIMEOUT
            )
            found = msgspec.json.decode(content) if status == 200 else {}
        except (RequestError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    return ask
