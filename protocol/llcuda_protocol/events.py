"""One class a frame kind: what is sent with `Connection.send` and comes out of `next_event`.

Cold frames carry a map on the wire: `FIELDS` names its keys, their checks, and which must be there.
Ping, pong, credit, tokens and vectors are positional; `frames.py` knows their shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .kinds import (
    MAX_CREDIT,
    MAX_HITS,
    MAX_LINGER,
    MAX_MAX_FRAME,
    MAX_SEQUENCE,
    MAX_STREAM,
    MAX_TOKEN_ID,
    MIN_MAX_FRAME,
    Kind,
)
from .schema import (
    Check,
    Field,
    boolean,
    integer,
    integers,
    json_map,
    list_of,
    map_of,
    number,
    record,
    text,
)

_NAME = text(256)
_BODY = text()
_COUNT = integer(0, MAX_SEQUENCE)
_SECONDS = number(0.0, 1e9)
_PARAMS = json_map(256)
_MESSAGE = record({"role": Field(text(64), required=True), "content": Field(_BODY, required=True)})
_TOKEN_IDS = integers(0, MAX_TOKEN_ID)
_HIT = record(
    {
        "id": Field(text(64), required=True),
        "score": Field(number(-1.0, 1.0), required=True),
        "created": Field(number(0.0, 1e12), required=True),
        "state": Field(text(64)),
        "model": Field(text(1024)),
        "tokens": Field(_COUNT),
        "preview": Field(text(1024)),
        "text": Field(text(1024)),
    }
)


def _check_prompt(value: Any, name: str) -> str | list[int]:
    if type(value) is list:
        ids: list[int] = _TOKEN_IDS(value, name)
        return ids
    if type(value) is str:
        return value
    raise ValueError(f"{name} must be a string or a list of token ids, not {type(value).__name__}")


_PROMPT = Check(f"string, or {_TOKEN_IDS.says}", _check_prompt)


@dataclass(frozen=True, slots=True)
class Hello:
    """The client's greeting. `token` is the shared secret, where the server wants one."""

    versions: list[int]
    max_frame: int
    max_streams: int
    token: str | None = field(default=None, repr=False)
    agent: str | None = None

    KIND: ClassVar[Kind] = Kind.HELLO
    FIELDS: ClassVar[dict[str, Field]] = {
        "versions": Field(list_of(integer(0, 65_535), 64, 1), required=True),
        "max_frame": Field(integer(MIN_MAX_FRAME, MAX_MAX_FRAME), required=True),
        "max_streams": Field(integer(1, MAX_STREAM), required=True),
        "token": Field(text(4096)),
        "agent": Field(_NAME),
    }


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's answer: the version chosen, its own limits, the request kinds it serves."""

    version: int
    max_frame: int
    max_streams: int
    agent: str | None = None
    features: list[str] = field(default_factory=list)

    KIND: ClassVar[Kind] = Kind.WELCOME
    FIELDS: ClassVar[dict[str, Field]] = {
        "version": Field(integer(0, 65_535), required=True),
        "max_frame": Field(integer(MIN_MAX_FRAME, MAX_MAX_FRAME), required=True),
        "max_streams": Field(integer(1, MAX_STREAM), required=True),
        "agent": Field(_NAME),
        "features": Field(list_of(_NAME, 256)),
    }


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for a generation from `prompt` (text or token ids) or from chat `messages`.

    Attributes:
        credit: bytes of token frames that may be sent before more credit is given.
        params: sampling parameters by llama-server's names.
        timeout: seconds for the whole request; None: the server's own.
        tokens: also send each token's id.
        key: names the request: the same key again means the same generation.
        fresh: the key was just made at random, so that no finished generation can have it.
        on_disconnect: seconds that it goes on when nobody reads it; None: the server's own.
        level: how much it shall survive: memory, process, disk or strict; None: the server's own.
        cache: may be answered with the stored result of the same request.
        durable: also send how much of it a power cut can no longer take away.
    """

    stream: int
    credit: int
    prompt: str | list[int] | None = None
    messages: list[dict[str, str]] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    tokens: bool = False
    key: str | None = None
    fresh: bool = False
    on_disconnect: float | None = None
    level: str | None = None
    cache: bool = False
    durable: bool = False

    KIND: ClassVar[Kind] = Kind.GENERATE
    FIELDS: ClassVar[dict[str, Field]] = {
        "credit": Field(integer(0, MAX_CREDIT), required=True),
        "prompt": Field(_PROMPT),
        "messages": Field(list_of(_MESSAGE, 100_000)),
        "params": Field(_PARAMS),
        "timeout": Field(_SECONDS),
        "tokens": Field(boolean),
        "key": Field(_NAME),
        "fresh": Field(boolean),
        "on_disconnect": Field(number(0.0, MAX_LINGER)),
        "level": Field(text(64)),
        "cache": Field(boolean),
        "durable": Field(boolean),
    }


@dataclass(frozen=True, slots=True)
class Attach:
    """Read generation `id` from sequence number `first`.

    Attributes:
        credit, tokens, durable: as in Generate.
        epoch: of the stream that is resumed, as `Accepted` said it; None: nothing was read before.
    """

    stream: int
    id: str
    credit: int
    first: int = 0
    epoch: int | None = None
    tokens: bool = False
    durable: bool = False

    KIND: ClassVar[Kind] = Kind.ATTACH
    FIELDS: ClassVar[dict[str, Field]] = {
        "id": Field(text(64), required=True),
        "credit": Field(integer(0, MAX_CREDIT), required=True),
        "first": Field(_COUNT),
        "epoch": Field(_COUNT),
        "tokens": Field(boolean),
        "durable": Field(boolean),
    }


@dataclass(frozen=True, slots=True)
class Embed:
    """Ask for one vector a text."""

    stream: int
    input: list[str]

    KIND: ClassVar[Kind] = Kind.EMBED
    FIELDS: ClassVar[dict[str, Field]] = {"input": Field(list_of(_BODY, 65_536, 1), required=True)}


@dataclass(frozen=True, slots=True)
class Search:
    """Ask for the `k` stored results nearest in meaning to a text."""

    stream: int
    text: str
    k: int = 10

    KIND: ClassVar[Kind] = Kind.SEARCH
    FIELDS: ClassVar[dict[str, Field]] = {
        "text": Field(_BODY, required=True),
        "k": Field(integer(1, MAX_HITS)),
    }


@dataclass(frozen=True, slots=True)
class Status:
    """Ask how the server is."""

    stream: int

    KIND: ClassVar[Kind] = Kind.STATUS
    FIELDS: ClassVar[dict[str, Field]] = {}


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop what the stream asked for; `detach`: stop reading, and let the generation go on."""

    stream: int
    detach: bool = False

    KIND: ClassVar[Kind] = Kind.CANCEL
    FIELDS: ClassVar[dict[str, Field]] = {"detach": Field(boolean)}


@dataclass(frozen=True, slots=True)
class Credit:
    """Allow `add` further bytes of token frames on the stream."""

    stream: int
    add: int

    KIND: ClassVar[Kind] = Kind.CREDIT


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a pong with the same payload."""

    payload: bytes = b""

    KIND: ClassVar[Kind] = Kind.PING


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a ping."""

    payload: bytes = b""

    KIND: ClassVar[Kind] = Kind.PONG


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is taken as generation `id`.

    `position` is its place in the queue: 1 is the next to run, 0 has a slot already. `level` says
    how much the generation survives: memory, process, disk or strict. `epoch` names the run that
    makes it: 0 is the first, and after a loss another continues it. `cached`: a stored result
    answers it.
    """

    stream: int
    id: str
    position: int = 0
    level: str | None = None
    epoch: int = 0
    cached: bool = False

    KIND: ClassVar[Kind] = Kind.ACCEPTED
    FIELDS: ClassVar[dict[str, Field]] = {
        "id": Field(text(64), required=True),
        "position": Field(_COUNT),
        "level": Field(text(64)),
        "epoch": Field(_COUNT),
        "cached": Field(boolean),
    }


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue moved: `position` is the request's new place, 0 when it has a slot."""

    stream: int
    position: int

    KIND: ClassVar[Kind] = Kind.QUEUE
    FIELDS: ClassVar[dict[str, Field]] = {"position": Field(_COUNT, required=True)}


@dataclass(frozen=True, slots=True)
class TopToken:
    """A candidate: token id, its bytes, natural log-probability."""

    id: int
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was chosen, with the likeliest candidates at its place."""

    id: int
    bytes: bytes
    logprob: float
    top: tuple[TopToken, ...] = ()


@dataclass(slots=True)
class Tokens:
    """Pieces of text; the first has sequence number `first`, counted from 0.

    Attributes:
        ids: one entry a piece: the id of its last token, or None. Only where asked for.
        logprobs: one entry a piece: its tokens. Only where n_probs asked for them.
    """

    stream: int
    first: int
    pieces: list[str]
    ids: list[int | None] | None = None
    logprobs: list[list[TokenLogprob]] | None = None

    KIND: ClassVar[Kind] = Kind.TOKENS


@dataclass(frozen=True, slots=True)
class Durable:
    """The first `count` pieces can no longer be lost, not even by a power cut."""

    stream: int
    count: int

    KIND: ClassVar[Kind] = Kind.DURABLE


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings, the first of input number `first`: each float32, little-endian, in binary."""

    stream: int
    first: int
    vectors: list[bytes]

    KIND: ClassVar[Kind] = Kind.VECTORS


@dataclass(frozen=True, slots=True)
class Hits:
    """Results that a search found, nearest first, from number `first` on.

    SPEC.md names the keys of a hit.
    """

    stream: int
    hits: list[dict[str, Any]]
    first: int = 0

    KIND: ClassVar[Kind] = Kind.HITS
    FIELDS: ClassVar[dict[str, Field]] = {
        "hits": Field(list_of(_HIT, MAX_HITS, 1), required=True),
        "first": Field(_COUNT),
    }


@dataclass(frozen=True, slots=True)
class Done:
    """The request has ended well.

    Attributes:
        reason: "stop" (end of text or stop string), "length" (n_predict or the context),
            "cancelled", "detached", or "complete" (an embed or search request).
        usage: counts: `prompt_tokens`, `cached_tokens`, `completion_tokens`; of a search
            `searched`, `backlog`.
        timings: milliseconds by phase; SPEC.md names them.
        splices: sequence numbers at which it was continued by prompting with what there was.
    """

    stream: int
    reason: str
    id: str | None = None
    model: str | None = None
    stop: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    splices: list[int] = field(default_factory=list)

    KIND: ClassVar[Kind] = Kind.DONE
    FIELDS: ClassVar[dict[str, Field]] = {
        "reason": Field(_NAME, required=True),
        "id": Field(text(64)),
        "model": Field(text(1024)),
        "stop": Field(_BODY),
        "usage": Field(map_of(_COUNT, 64)),
        "timings": Field(map_of(number(-1e15, 1e15), 64)),
        "splices": Field(list_of(_COUNT, 65_536)),
    }


@dataclass(frozen=True, slots=True)
class Error:
    """A failure: of the request on its stream, or of the connection (stream 0, the last frame).

    Attributes:
        code: an ErrorCode, or one that a later version added.
        retry: whether the same request may succeed later.
        retry_after: seconds to wait before that, where known.
        durable: with the code `ahead`: how many pieces of the client's are the server's, too.
    """

    stream: int
    code: str
    message: str
    retry: bool = False
    retry_after: float | None = None
    durable: int | None = None

    KIND: ClassVar[Kind] = Kind.ERROR
    FIELDS: ClassVar[dict[str, Field]] = {
        "code": Field(text(64), required=True),
        "message": Field(text(4096), required=True),
        "retry": Field(boolean),
        "retry_after": Field(_SECONDS),
        "durable": Field(_COUNT),
    }


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server is about to stop: open no more streams; the others have `grace` seconds left."""

    grace: float
    message: str | None = None

    KIND: ClassVar[Kind] = Kind.GO_AWAY
    FIELDS: ClassVar[dict[str, Field]] = {
        "grace": Field(_SECONDS, required=True),
        "message": Field(text(4096)),
    }


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to status; SPEC.md names the keys."""

    stream: int
    report: dict[str, Any]

    KIND: ClassVar[Kind] = Kind.REPORT
    FIELDS: ClassVar[dict[str, Field]] = {"report": Field(_PARAMS, required=True)}


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The other side closed the connection between two frames. Not a frame."""


Frame = (
    Hello
    | Welcome
    | Generate
    | Attach
    | Embed
    | Search
    | Status
    | Cancel
    | Credit
    | Ping
    | Pong
    | Accepted
    | Queue
    | Tokens
    | Durable
    | Vectors
    | Hits
    | Done
    | Error
    | GoAway
    | Report
)
Event = Frame | ConnectionClosed

__all__ = [
    "Accepted",
    "Attach",
    "Cancel",
    "ConnectionClosed",
    "Credit",
    "Done",
    "Durable",
    "Embed",
    "Error",
    "Event",
    "Frame",
    "Generate",
    "GoAway",
    "Hello",
    "Hits",
    "Ping",
    "Pong",
    "Queue",
    "Report",
    "Search",
    "Status",
    "TokenLogprob",
    "Tokens",
    "TopToken",
    "Vectors",
    "Welcome",
]
