"""What becomes of an answer whose client goes away, and which one a client that retries gets back.

A generation goes on without a reader for as long as its request says; see `seconds_without_reader`.
Those that were left are remembered for a while after their end, so that the retry of an SDK, which
names neither key nor generation, joins what it began instead of paying for it twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import trio

from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.request import Headers, seconds_of
from llcuda_protocol.kinds import MAX_LINGER

#: Seconds for which an answer goes on whose client announced that it retries.
RETRY_SECONDS = 10.0
#: Seconds for which, and the most answers of which, one that was left is remembered.
REMEMBERED, MOST_REMEMBERED = 60.0, 1000
_POLICY = "x-llcuda-on-disconnect"
#: OpenAI's SDKs send it with each attempt, with 0 first.
_RETRIES = "x-stainless-retry-count"


def wanted_policy(headers: Headers) -> float | None:
    """The seconds that x-llcuda-on-disconnect asks for; None where it is not there.

    Raises:
        InvalidRequest: it is neither continue, nor cancel, nor a number of seconds.
    """
    text = headers.get(_POLICY)
    if text is None:
        return None
    word = text.strip().lower()
    if word in ("continue", "cancel"):
        return float(MAX_LINGER) if word == "continue" else 0.0
    seconds = seconds_of(word)
    if seconds is None:
        raise InvalidRequest(f"{_POLICY} is continue, cancel or seconds, not {text[:60]!r}")
    return min(seconds, float(MAX_LINGER))


def seconds_without_reader(headers: Headers, default: float, *, with_key: bool) -> float:
    """For how long an answer goes on when its client is gone.

    Args:
        default: of the server, for clients that can come back.
        with_key: the request has an idempotency key.

    Raises:
        InvalidRequest: as `wanted_policy`.
    """
    wanted = wanted_policy(headers)
    if wanted is not None:
        return wanted
    if with_key:
        return default
    # Who can neither come back nor tries again has gone for good, and the slot is free.
    return 0.0 if headers.get(_RETRIES) is None else RETRY_SECONDS


def is_retry(headers: Headers) -> bool:
    """Whether a client's SDK sends this request again."""
    count = headers.get(_RETRIES) or "0"
    return count.isascii() and count.isdigit() and int(count[:9]) > 0


class Orphans:
    """The answers over HTTP that were left before their end, oldest first."""

    def __init__(self) -> None:
        self._left: OrderedDict[Generation, float] = OrderedDict()  # and until when

    def __repr__(self) -> str:
        return f"<Orphans {len(self._left)}>"

    def __iter__(self) -> Iterator[Generation]:
        self._forget()
        return iter(tuple(self._left))

    def add(self, generation: Generation) -> None:
        """Its reader has gone before the end."""
        self._left[generation] = trio.current_time() + REMEMBERED
        self._left.move_to_end(generation)
        self._forget()

    def discard(self, id_: str) -> None:
        """A generation was deleted: nobody gets it any more."""
        for generation in [one for one in self._left if one.id == id_]:
            del self._left[generation]

    def _forget(self) -> None:
        now = trio.current_time()
        while self._left:
            generation, until = next(iter(self._left.items()))
            if until > now and len(self._left) <= MOST_REMEMBERED:
                return
            del self._left[generation]


def joinable(generation: Generation) -> bool:
    """Whether a retry may have it: nobody reads it, and it runs or has done its work."""
    if generation.api is None or generation.readers or generation.scope.cancel_called:
        return False
    return generation.state is State.DONE or not generation.ended
