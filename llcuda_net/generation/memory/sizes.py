"""Bytes of memory that requests and logs take, estimated: a little more than they do.

Nothing here is called per token; what is added per token are the constants.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from llcuda_net.errors import Overloaded
from llcuda_net.storage.records import Switch, TokenLog

#: Of a generation beside its request and its log: its task, its ticket, one stream.
GENERATION = 8 << 10
#: Of a piece beside its text: the string, the id of its last token, places in lists. A character
#: takes up to four bytes.
PIECE = 144
#: Of encoded bytes beside themselves: the object, its place in a list, the array around it.
PACKED = 128
#: Of a switch to another channel, beside the texts in it.
SWITCH = 160
#: Encoded bytes of one candidate: id, bytes and a double, in an array.
CANDIDATE = 24


def of(value: Any) -> int:
    """Of a value of msgpack's types, with all that is in it."""
    total = 0
    rest = [value]
    while rest:
        found = rest.pop()
        total += sys.getsizeof(found)
        if isinstance(found, dict):
            rest += found.keys()
            rest += found.values()
        elif isinstance(found, list | tuple):
            if found and type(found[0]) is int:
                total += 28 * len(found)  # ids: by the million, and all alike
            else:
                rest += found
    return total


def of_request(
    prompt: Any,
    messages: Any,
    params: Mapping[str, Any],
    chat: dict[str, Any] | None = None,
    api: dict[str, Any] | None = None,
) -> int:
    """Of a generation with its request, and no log.

    A prompt is there as it came, as the template renders it, and as it is sent to the upstream.
    """
    return GENERATION + 3 * (of(prompt) + of(messages)) + 2 * (of(params) + of(chat)) + of(api)


def of_switch(switch: Switch) -> int:
    """Of one switch to another channel."""
    return SWITCH + 4 * (len(switch.id) + len(switch.name))


def of_log(log: TokenLog, switches: Iterable[Switch] = ()) -> int:
    """Of a log: what `Generation.extend` would have counted."""
    total = PIECE * len(log.pieces) + 4 * sum(map(len, log.pieces)) + sum(map(of_switch, switches))
    if log.logprobs is not None:
        total += PACKED * len(log.logprobs) + sum(map(len, log.logprobs))
    return total


def grown_beyond(most_bytes: int) -> Overloaded:
    """The error for a log that takes more than it may."""
    return Overloaded(
        f"the log of this generation has grown beyond {most_bytes:,} bytes of memory: ask for "
        "fewer tokens, or for fewer probabilities (n_probs)"
    )


def most(params: Mapping[str, Any]) -> int:
    """Of the log of a request with these checked parameters, at most; 0: no token is dear.

    Text alone is counted as it comes: requests ask for far more of it than they get.
    """
    return int(params.get("n_predict") or 0) * _of_token(params)


def tokens_within(params: Mapping[str, Any], size: int) -> int | None:
    """Tokens of a request with these checked parameters whose log surely fits; None: any number."""
    token = _of_token(params)
    return size // token if token else None


def _of_token(params: Mapping[str, Any]) -> int:
    candidates = int(params.get("n_probs") or 0)
    return PIECE + PACKED + (candidates + 1) * CANDIDATE if candidates else 0
