"""What a server that follows a generation of another one must know of it beside its log.

The documents of facts frames, as msgpack: `Begun` before accepted, `Run` where one of its values
has changed, `Over` before the end. The two servers are of one version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import trio

from llcuda_net.config.users import Priority
from llcuda_net.errors import RequestError, request_error
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import TRANSITIONS, Outcome, State
from llcuda_net.storage.records import DECODE_ERRORS, Level
from llcuda_protocol import Facts
from llcuda_protocol.kinds import MAX_FACTS

#: Numbers that are numbers: what is read here goes into answers and calculations.
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.0)]
_Real = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]
_Splices = list[tuple[_Count, _Count]]


class Run(msgspec.Struct, tag="run", omit_defaults=True):
    """What changes while it runs.

    Attributes:
        failovers: the position and the reason of each.
    """

    state: State
    upstream: str = ""
    model: dict[str, Any] = {}
    splices: _Splices = []
    failovers: list[tuple[_Count, str]] = []

    @classmethod
    def of(cls, generation: Generation) -> Run:
        """That of a generation now; one that is over ran until then."""
        return cls(
            State.RUNNING if generation.ended else generation.state,
            generation.upstream,
            generation.model,
            [*generation.splices],
            [(one.position, one.reason) for one in generation.failovers],
        )

    def tell(self, generation: Generation) -> None:
        """Have a generation that follows be as this one."""
        generation.upstream, generation.model = self.upstream, self.model
        generation.splices = [*self.splices]
        if self.state is State.RUNNING and generation.state is State.QUEUED:
            generation.dispatched()


class Begun(msgspec.Struct, tag="begun", omit_defaults=True):
    """What stays as it was when it began.

    Attributes:
        age: seconds since it was received.
        asked: prompt, messages and options of the chat; None: the other server has sent them.
    """

    owner: str
    created: _Count
    level: Level
    params: dict[str, Any]
    timeout: _Seconds
    on_disconnect: _Seconds
    age: _Seconds
    run: Run
    key: str | None = None
    request_hash: bytes = b""
    earlier_hash: bytes = b""
    priority: Priority = Priority.NORMAL
    wanted: str | None = None
    previous: str | None = None
    transient: bool = False
    seed: int | None = None
    cached_from: str | None = None
    api: dict[str, Any] | None = None
    asked: (
        tuple[str | list[int] | None, list[dict[str, Any]] | None, dict[str, Any] | None] | None
    ) = None

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
            priority=Priority(generation.priority),
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

    state: State
    finished: _Count | None
    reason: str
    stop: str | None
    model: str | None
    usage: dict[str, _Count]
    timings: dict[str, _Real]
    splices: _Splices
    error: tuple[str, str, bool, Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] | None] | None = (
        None
    )
    counts: list[_Count] | None = None

    def __post_init__(self) -> None:
        if TRANSITIONS[self.state]:
            raise ValueError(f"{self.state} is no end")

    @classmethod
    def of(cls, generation: Generation) -> Over:
        """That of a generation that is over."""
        outcome, error, counts = generation.outcome, generation.error, generation.counts
        return cls(
            generation.state,
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
        try:
            return _decoder.decode(data)
        except DECODE_ERRORS as error:
            raise ValueError(f"facts that cannot be read: {error}") from None
