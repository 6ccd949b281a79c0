"""What a server that follows a generation of another one must know of it beside its log.

The documents of facts frames, as msgpack: `Begun` before accepted, `Run` where one of its values
has changed, `Over` before the end. The two servers are of one version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import trio

from llcuda_net.config.users import Priority
from llcuda_net.errors import RequestError, request_error
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import Outcome, State
from llcuda_net.storage.records import Level
from llcuda_protocol import Facts
from llcuda_protocol.kinds import MAX_FACTS


class Run(msgspec.Struct, tag="run", omit_defaults=True):
    """What changes while it runs.

    Attributes:
        failovers: the position and the reason of each.
    """

    state: str
    upstream: str = ""
    model: dict[str, Any] = {}
    splices: list[tuple[int, int]] = []
    failovers: list[tuple[int, str]] = []

    @classmethod
    def of(cls, generation: Generation) -> Run:
        """That of a generation now; one that is over ran until then."""
        return cls(
            str(State.RUNNING if generation.ended else generation.state),
            generation.upstream,
            generation.model,
            [*generation.splices],
            [(one.position, one.reason) for one in generation.failovers],
        )

    def tell(self, generation: Generation) -> None:
        """Have a generation that follows be as this one."""
        generation.upstream, generation.model = self.upstream, self.model
        generation.splices = [*self.splices]
        if self.state == State.RUNNING and generation.state is State.QUEUED:
            generation.dispatched()


class Begun(msgspec.Struct, tag="begun", omit_defaults=True):
    """What stays as it was when it began.

    Attributes:
        age: seconds since it was received.
        asked: prompt, messages and options of the chat; None: the other server has sent them.
    """

    owner: str
    created: int
    level: Level
    params: dict[str, Any]
    timeout: float
    on_disconnect: float
    age: float
    run: Run
    key: str | None = None
    request_hash: bytes = b""
    earlier_hash: bytes = b""
    priority: int = Priority.NORMAL
    wanted: str | None = None
    previous: str | None = None
    transient: bool = False
    seed: int | None = None
    cached_from: str | None = None
    api: dict[str, Any] | None = None
    asked: tuple[Any, Any, Any] | None = None

    @classmethod
    def of(cls, generation: Generation, *, asked: bool) -> Begun:
        """Those of a generation; `asked`: with what it was asked."""
        return cls(
            owner=generation.owner,
            created=generation.created,
            level=generation.level,
            params=generation.params,
            timeout=generation.timeout,
            on_disconnect=generation.on_disconnect,
            age=trio.current_time() - generation.times.received,
            run=Run.of(generation),
            key=generation.key,
            request_hash=generation.request_hash,
            earlier_hash=generation.earlier_hash,
            priority=generation.priority,
            wanted=generation.wanted,
            previous=generation.previous,
            transient=generation.transient,
            seed=generation.seed,
            cached_from=generation.cached_from,
            api=generation.api,
            asked=(generation.prompt, generation.messages, generation.chat) if asked else None,
        )


class Over(msgspec.Struct, tag="over", omit_defaults=True):
    """How it ended.

    Attributes:
        error: code, message, whether and after how many seconds another try is worth it.
        counts: tokens of each piece, where one stands for more than one.
    """

    state: str
    finished: int | None
    reason: str
    stop: str | None
    model: str | None
    usage: dict[str, int]
    timings: dict[str, float]
    splices: list[tuple[int, int]]
    error: tuple[str, str, bool, float | None] | None = None
    counts: list[int] | None = None

    @classmethod
    def of(cls, generation: Generation) -> Over:
        """That of a generation that is over."""
        outcome, error, counts = generation.outcome, generation.error, generation.counts
        return cls(
            str(generation.state),
            generation.finished,
            outcome.reason,
            outcome.stop,
            outcome.model,
            outcome.usage,
            generation.phases(),
            [*generation.splices],
            None
            if error is None
            else (str(error.code), error.message, error.retry, error.retry_after),
            None if all(count == 1 for count in counts) else counts,
        )

    @property
    def outcome(self) -> Outcome:
        """What readers get at the end."""
        return Outcome(self.reason, self.stop, self.model, self.usage, self.timings)

    @property
    def failure(self) -> RequestError | None:
        """The error with which it ended."""
        if self.error is None:
            return None
        code, message, retry, retry_after = self.error
        return request_error(code, message, retry=retry, retry_after=retry_after)


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Begun | Run | Over] = msgspec.msgpack.Decoder(Begun | Run | Over)


def frames(stream: int, document: Begun | Run | Over) -> Iterator[Facts]:
    """The frames of a document."""
    data = memoryview(_encoder.encode(document))
    for first in range(0, len(data), MAX_FACTS):
        piece = data[first : first + MAX_FACTS]
        yield Facts(stream, bytes(piece), first + MAX_FACTS < len(data))


class Assembly:
    """Puts the frames of documents together.

    Args:
        most: bytes of one document.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()

    def add(self, frame: Facts) -> Begun | Run | Over | None:
        """The document that this frame completes; None: it goes on.

        Raises:
            ValueError: it is none, or too large.
        """
        self._data += frame.data
        if len(self._data) > self._most:
            raise ValueError(f"more than {self._most} bytes of facts")
        if frame.more:
            return None
        data, self._data = self._data, bytearray()
        return _decoder.decode(data)  # msgspec's errors are ValueErrors
