"""What is stored: the journal's records and the result of a generation.

Records are encoded as msgpack arrays that begin with their kind. A field may be added at the end
with a default, and older bytes then still decode; anything else takes a new kind.
Times are wall-clock nanoseconds since 1970.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from llcuda_net.errors import StorageError

#: Beside each piece its tokens, each `[id, bytes, logprob, [[id, bytes, logprob], …]]`.
Logprobs = list[list[Any]]
#: Bytes of every hash that is stored.
HASH_SIZE = 32


class Level(StrEnum):
    """How much a generation survives."""

    MEMORY = "memory"
    PROCESS = "process"
    DISK = "disk"
    STRICT = "strict"

    @property
    def journalled(self) -> bool:
        """Whether anything is written at all."""
        return self is not Level.MEMORY

    @property
    def synced(self) -> bool:
        """Whether what is written is forced to the disk."""
        return self in (Level.DISK, Level.STRICT)


class Opened(msgspec.Struct, array_like=True, tag=1, kw_only=True):
    """A generation was accepted.

    Attributes:
        slot: the journal's short number for the generation, given by the journal.
        request: all that was asked (prompt or messages, params, timeout …), of msgpack's types.
        key: the idempotency key, unique within one owner's.
        request_hash: `hash_of` what makes two requests the same.
        owner: whose it is; empty where nobody has a name.
        on_disconnect: "continue", "cancel", or seconds to wait.
        created: when it was accepted.
    """

    slot: int = 0
    generation: str
    request: dict[str, Any]
    level: Level = Level.DISK
    key: str | None = None
    request_hash: bytes = b""
    owner: str = ""
    on_disconnect: str | float | None = None
    created: int = 0


class Appended(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Tokens came: `pieces` are the log's entries from number `first` on.

    `ids`, `logprobs` and `counts` stand beside the pieces, as in TokenLog.
    """

    slot: int
    first: int
    pieces: list[str]
    ids: list[int | None]
    logprobs: Logprobs | None = None
    counts: list[int] | None = None


class Spliced(msgspec.Struct, array_like=True, tag=3, gc=False):
    """From log entry `position` on, the generation was continued on `upstream`.

    `epoch` names that run of it: there may be two from one position, and one whose entries, and
    this record, were lost with the power.
    """

    slot: int
    position: int
    upstream: str
    epoch: int = 0


class Splice(NamedTuple):
    """A continuation, as in Spliced."""

    position: int
    upstream: str
    epoch: int = 0


def is_continuation(position: int, count: int, state: str) -> bool:
    """Whether a splice is one to tell of, in a log of `count` entries that ended in `state`.

    A run from the very beginning is none, nor is one that gave nothing.
    """
    return 0 < position < count + (state == "done")


class Ended(msgspec.Struct, array_like=True, tag=4, kw_only=True):
    """A generation is over.

    Attributes:
        count: entries of its log; given by the journal.
        state: done, failed, cancelled or interrupted.
        reason: why it finished: stop, length …
        error: code and message, where it failed.
        usage: tokens of prompt and completion.
        timings: milliseconds by phase.
        model: the model's fingerprint: name, file hash, size, quantisation, build_info …
        cacheable: whether the same request may be answered with this result.
        finished: when.
    """

    slot: int = 0
    count: int = 0
    state: str
    reason: str = ""
    stop: str | None = None
    error: dict[str, Any] | None = None
    usage: dict[str, int] = {}
    timings: dict[str, float] = {}
    model: dict[str, Any] = {}
    upstream: str = ""
    seed: int | None = None
    cacheable: bool = False
    finished: int = 0


class Forgotten(msgspec.Struct, array_like=True, tag=5, gc=False):
    """The journal need not keep a generation any longer: its result is in the store."""

    slot: int


class Dispatched(msgspec.Struct, array_like=True, tag=6, kw_only=True):
    """An upstream was asked to generate, or to continue.

    Attributes:
        number: how many there were before it, of the same generation; given by the journal.
        upstream: which.
        model: the fingerprint of its model, as in Ended.
        prompt: what the generation was asked for, where that is not what the request says: a
            chat template may hold the date, and so must not be rendered a second time. None: what
            an earlier one says, or else the request.
    """

    slot: int = 0
    number: int = 0
    upstream: str
    model: dict[str, Any] = {}
    prompt: str | list[int] | None = None


class Concluded(msgspec.Struct, array_like=True, tag=7, kw_only=True):
    """The upstream has said the end: the log is whole, and only its result is missing.

    Attributes:
        count: entries of the log; given by the journal.
        reason: stop or length.
        stop: the stop string that ended it.
        usage: as in Ended.
    """

    slot: int = 0
    count: int = 0
    reason: str
    stop: str | None = None
    usage: dict[str, int] = {}


Record = Opened | Appended | Spliced | Ended | Forgotten | Dispatched | Concluded


def _empty() -> list[Any]:
    return []


# `counts` is not encoded where it is None, and the other fields always are (msgspec leaves out only
# what it knows to be the default), so that results have the bytes, and the hash, that they had
# before there were counts.
class TokenLog(msgspec.Struct, omit_defaults=True):
    """A generation's log: pieces of text, and what stands beside each.

    Attributes:
        ids: its last token's; None where the upstream told none.
        logprobs: its tokens'; None where nobody asked.
        counts: how many tokens it stands for: those that hold a part of a character, or what may
            become a stop string, come together with a later one. None: one each. Only what is
            still open has them; a result has not.
    """

    pieces: list[str] = msgspec.field(default_factory=_empty)
    ids: list[int | None] = msgspec.field(default_factory=_empty)
    logprobs: Logprobs | None = msgspec.field(default_factory=lambda: None)
    counts: list[int] | None = None

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.pieces) if self.counts is None else sum(self.counts)


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The persisted outcome of a generation, with its provenance; fields as in the records.

    Fields at their defaults are not encoded, so that a field more leaves the bytes, and their
    hash, as they were. msgspec tells a default by identity: it must be one of Python's singletons.

    Attributes:
        splices: each time that it was run again, whatever came of it; see `continuations`.
        cached_from: the result whose log this one repeats.
    """

    id: str
    state: str
    created: int
    finished: int
    request: dict[str, Any] = {}
    log: TokenLog = msgspec.field(default_factory=TokenLog)
    reason: str = ""
    stop: str | None = None
    error: dict[str, Any] | None = None
    usage: dict[str, int] = {}
    timings: dict[str, float] = {}
    model: dict[str, Any] = {}
    upstream: str = ""
    seed: int | None = None
    splices: list[Splice] = []
    level: Level = Level.DISK
    key: str | None = None
    request_hash: bytes = b""
    owner: str = ""
    on_disconnect: str | float | None = None
    cacheable: bool = False
    cached_from: str | None = None

    @property
    def text(self) -> str:
        """What was generated."""
        return "".join(self.log.pieces)

    @property
    def continuations(self) -> list[Splice]:
        """Of the splices, those that something follows."""
        count = len(self.log.pieces)
        return [s for s in self.splices if is_continuation(s.position, count, self.state)]

    @classmethod
    def of(
        cls,
        opened: Opened,
        log: TokenLog,
        ended: Ended,
        splices: list[Splice],
        cached_from: str | None = None,
    ) -> Result:
        """The result that these records add up to.

        A continued generation depends on where it was cut, so it never answers from the cache;
        nor does one that was answered from there, since the original still does.
        """
        return cls(
            id=opened.generation,
            state=ended.state,
            created=opened.created,
            finished=ended.finished,
            request=opened.request,
            log=TokenLog(log.pieces, log.ids, log.logprobs),
            reason=ended.reason,
            stop=ended.stop,
            error=ended.error,
            usage=ended.usage,
            timings=ended.timings,
            model=ended.model,
            upstream=ended.upstream,
            seed=ended.seed,
            splices=splices,
            level=opened.level,
            key=opened.key,
            request_hash=opened.request_hash,
            owner=opened.owner,
            on_disconnect=opened.on_disconnect,
            cacheable=(
                ended.cacheable
                and ended.state == "done"
                and not any(splice.position for splice in splices)
                and cached_from is None
            ),
            cached_from=cached_from,
        )


#: Encodes records, where a call of `encode` costs too much.
encoder = msgspec.msgpack.Encoder()
_canonical = msgspec.msgpack.Encoder(order="deterministic")
_records: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_results = msgspec.msgpack.Decoder(Result)
#: All that encoding may raise.
ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
#: All that decoding damaged bytes may raise: msgspec's own, and Python's from within it.
DECODE_ERRORS = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


def encode(value: Any) -> bytes:
    """Bytes of a record, a result, or anything of msgpack's types.

    Raises:
        StorageError: it holds something that msgpack cannot.
    """
    try:
        return encoder.encode(value)
    except ENCODE_ERRORS as error:
        raise unstorable(error) from error


def decode(data: bytes | memoryview) -> Record:
    """The record that `encode` made bytes of.

    Raises:
        StorageError: the bytes are damaged.
    """
    try:
        return _records.decode(data)
    except DECODE_ERRORS as error:
        raise damaged("a record", error) from error


def decode_result(data: bytes | memoryview) -> Result:
    """The result that `encode` made bytes of.

    Raises:
        StorageError: the bytes are damaged.
    """
    try:
        return _results.decode(data)
    except DECODE_ERRORS as error:
        raise damaged("a result", error) from error


def hash_of(value: Any) -> bytes:
    """A hash that is the same for equal values, whatever the order of their keys.

    Raises:
        StorageError: as `encode`.
    """
    try:
        data = _canonical.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise unstorable(error) from error
    return blake2b(data, digest_size=HASH_SIZE).digest()


def damaged(what: str, error: Exception) -> StorageError:
    """The error for bytes that do not decode."""
    return StorageError(f"{what} does not decode: {error}", StorageError.DAMAGED)


def unstorable(error: Exception) -> StorageError:
    """The error for values that do not encode."""
    return StorageError(f"this cannot be stored: {error}", StorageError.INVALID)
