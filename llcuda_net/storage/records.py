"""What is stored: the records of the journal, and the result of a generation.

A record is encoded as a msgpack array that begins with its kind. A new field goes to the end and
has a default, so that older bytes still decode; any other change takes a new kind.
Times are wall-clock nanoseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from llcuda_net.errors import StorageError
from llcuda_net.storage.channels import Switch as Switch
from llcuda_net.storage.channels import text_pieces

#: The tokens of each piece, encoded as the wire and every record have them: msgpack of a list of
#: `[id, bytes, logprob, [[id, bytes, logprob], …]]`; a logprob that is not known is nil. They are
#: encoded once, when they come from the upstream, and decoded by who looks at them: as objects they
#: take ten times the memory.
Logprobs = list[msgspec.Raw]
#: The same decoded: one list of tokens per piece.
DecodedLogprobs = list[list[Any]]
#: Bytes of every stored hash.
HASH_SIZE = 32


class Level(StrEnum):
    """The durability of a generation: which failures it survives."""

    MEMORY = "memory"
    PROCESS = "process"
    DISK = "disk"
    STRICT = "strict"
    CLUSTER = "cluster"

    @property
    def journalled(self) -> bool:
        """Whether the journal holds the generation."""
        return self is not Level.MEMORY

    @property
    def synced(self) -> bool:
        """Whether writes are forced to this machine's disk."""
        return self in (Level.DISK, Level.STRICT)

    @property
    def replicated(self) -> bool:
        """Whether writes are committed to the database of several servers before they are seen."""
        return self is Level.CLUSTER


class Opened(msgspec.Struct, array_like=True, tag=1, kw_only=True):
    """A generation was accepted.

    Attributes:
        slot: the journal's short number for the generation, given by the journal.
        request: the whole request (prompt or messages, params, timeout …), of msgpack's types.
        key: the idempotency key, unique per owner.
        request_hash: `hash_of` the parts that make two requests equal.
        owner: the user's name; empty where users have none.
        on_disconnect: "continue", "cancel", or seconds to wait.
        created: when it was accepted.
        transient: its result is erased a while after its end, and no other store gets it.
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
    transient: bool = False


class Appended(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Tokens arrived: `pieces` are the log's entries from number `first` on.

    `ids`, `logprobs` and `counts` have one entry per piece, as in TokenLog.

    Attributes:
        switches: how many switches there are up to the last of these pieces: without them it would
            not be known of which channel they are.
    """

    slot: int
    first: int
    pieces: list[str]
    ids: list[int | None]
    logprobs: Logprobs | None = None
    counts: list[int] | None = None
    switches: int = 0


class Spliced(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The generation was continued on `upstream`, from log entry `position` on.

    `epoch` identifies the run. Two runs may start at one position, and a power cut may take the
    entries and this record of a run.
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
    """Whether a splice at `position` counts as a continuation.

    A run from the very beginning does not count, nor does a run without any output.

    Args:
        count: entries of the log.
        state: in which the generation ended.
    """
    return 0 < position < count + (state == "done")


class Ended(msgspec.Struct, array_like=True, tag=4, kw_only=True):
    """A generation ended.

    Attributes:
        count: entries of its log; given by the journal.
        state: done, failed, cancelled or interrupted.
        reason: why it finished: stop, length …
        error: code and message, if it failed.
        usage: tokens of prompt and completion.
        timings: milliseconds by phase.
        model: the model's fingerprint: name, file hash, size, quantisation, build_info …
        cacheable: whether this result may answer an equal request.
        finished: when it ended.
        number: how many ends were recorded before; given by the journal. The highest one counts.
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
    number: int = 0


class Forgotten(msgspec.Struct, array_like=True, tag=5, gc=False):
    """The journal no longer needs a generation: its result is in the store.

    Attributes:
        generation: its id; empty in records of earlier versions.
        reached: how many results the store had ever committed by then; see Store.reached.
    """

    slot: int
    generation: str = ""
    reached: int = 0


class Dispatched(msgspec.Struct, array_like=True, tag=6, kw_only=True):
    """A request went to an upstream, to begin a generation or to continue it.

    Attributes:
        number: how many dispatches of the generation came before; given by the journal.
        upstream: its URL.
        model: the fingerprint of its model, as in Ended.
        prompt: the prompt that was sent, if it is not the request's own: a chat template may hold
            the date, so it is not rendered again. None: that of an earlier dispatch, or else the
            request's.
    """

    slot: int = 0
    number: int = 0
    upstream: str
    model: dict[str, Any] = {}
    prompt: str | list[int] | None = None


class Concluded(msgspec.Struct, array_like=True, tag=7, kw_only=True):
    """The upstream finished: the log is complete, and only the result is missing.

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


class Synced(msgspec.Struct, array_like=True, tag=8, gc=False):
    """These parts of segments were on the disk before this was written.

    Bytes that are bad there are damage; elsewhere a power cut may have left them.

    Attributes:
        ends: number of each segment, and how many of its bytes, header included.
    """

    slot: int = 0
    ends: list[tuple[int, int]] = []


class Stored(msgspec.Struct, array_like=True, tag=9, gc=False):
    """What is known of the store, repeated in each segment.

    Attributes:
        results: ids of the results that were stored last, each with `reached` as in Forgotten.
        store: names of the store that has them, and those that are forgotten after this record;
            see Store.names. Empty in records of earlier versions.
    """

    slot: int = 0
    results: list[tuple[str, int]] = []
    store: list[str] = []


class Switched(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The log goes on in another channel from entry `position` on; see Switch."""

    slot: int
    position: int
    kind: str
    index: int = 0
    id: str = ""
    name: str = ""


Record = (
    Opened
    | Appended
    | Spliced
    | Ended
    | Forgotten
    | Dispatched
    | Concluded
    | Synced
    | Stored
    | Switched
)
#: The highest kind of a record.
LAST_KIND = 10


def _empty() -> list[Any]:
    return []


# `counts` is not encoded if it is None, and the other fields always are (msgspec omits only what it
# recognises as the default), so that results keep the bytes, and the hash, that they had before
# `counts` existed.
class TokenLog(msgspec.Struct, omit_defaults=True):
    """The log of a generation: pieces of text, and what belongs to each.

    Attributes:
        ids: the id of the last token of each piece; None if the upstream sent none.
        logprobs: the log-probabilities of the tokens of each piece; None if not requested.
        counts: the number of tokens of each piece. A token that holds part of a character, or may
            begin a stop string, comes in one piece with later ones. None: one token each. Only
            open generations have counts; results do not.
    """

    pieces: list[str] = msgspec.field(default_factory=_empty)
    ids: list[int | None] = msgspec.field(default_factory=_empty)
    logprobs: Logprobs | None = msgspec.field(default_factory=lambda: None)
    counts: list[int] | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return len(self.pieces) if self.counts is None else sum(self.counts)


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The persisted outcome of a generation, with its provenance; fields as in the records.

    Fields at their defaults are not encoded, so that a new field changes neither the bytes of
    earlier results nor their hash. msgspec recognises a default by identity: it must be one of
    Python's singletons.

    Attributes:
        splices: every further run, with or without output; see `continuations`.
        cached_from: the result whose log this one repeats.
        switches: where the log changes between text, reasoning and tool calls.
        transient: as in Opened; never of one in results.db.
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
    switches: list[Switch] = []
    transient: bool = False

    @property
    def text(self) -> str:
        """The generated text, without reasoning and tool calls."""
        return "".join(text_pieces(self.log.pieces, self.switches))

    @property
    def continuations(self) -> list[Splice]:
        """The splices that are followed by output; see `is_continuation`."""
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
        switches: Sequence[Switch] = (),
    ) -> Result:
        """The result of these records.

        A continued generation depends on where it was cut, so it is not cacheable. Nor is a copy
        from the cache, because the original still is.
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
            switches=list(switches),
            transient=opened.transient,
        )


#: Encodes records, where a call of `encode` costs too much.
encoder = msgspec.msgpack.Encoder()
_canonical = msgspec.msgpack.Encoder(order="deterministic")
_tokens: msgspec.msgpack.Decoder[list[Any] | None] = msgspec.msgpack.Decoder(list[Any] | None)
_records: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
#: All that encoding may raise.
ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
#: All that decoding damaged bytes may raise: errors of msgspec, and of Python from within it.
DECODE_ERRORS = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


def encode(value: Any) -> bytes:
    """The bytes of a record, a result, or any value of msgpack's types.

    Raises:
        StorageError: msgpack cannot hold the value.
    """
    try:
        return encoder.encode(value)
    except ENCODE_ERRORS as error:
        raise unstorable(error) from error


def decode(data: bytes | memoryview) -> Record:
    """The record of bytes that `encode` returned.

    Raises:
        StorageError: the bytes are damaged.
    """
    try:
        return _records.decode(data)
    except DECODE_ERRORS as error:
        raise damaged("a record", error) from error


def later_kind(data: bytes) -> int | None:
    """The kind of a record that a later version added; None: it is one that we know, or none."""
    is_array = len(data) > 1 and 0x92 <= data[0] <= 0x9F
    return data[1] if is_array and LAST_KIND < data[1] < 0x80 else None


def packed(tokens: Sequence[Any]) -> msgspec.Raw:
    """The tokens of one piece, encoded; each a list as in Logprobs, or one that is encoded."""
    # A copy: the encoder's bytes keep up to half as much again behind them.
    return msgspec.Raw(bytes(memoryview(encode(tokens))))


def unpacked(piece: msgspec.Raw) -> list[Any]:
    """The tokens of one piece.

    Raises:
        StorageError: the bytes are damaged.
    """
    try:
        return _tokens.decode(piece) or []
    except DECODE_ERRORS as error:
        raise damaged("a log-probability", error) from error


def hash_of(value: Any) -> bytes:
    """A hash of a value that does not depend on the order of keys.

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
