"""The frames of a client: one class per kind. See events.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .kinds import (
    MAX_CREDIT,
    MAX_HITS,
    MAX_LINGER,
    MAX_LISTED,
    MAX_MAX_FRAME,
    MAX_STREAM,
    MIN_MAX_FRAME,
    Kind,
)
from .schema import (
    BODY,
    COUNT,
    LINE,
    NAME,
    PARAMS,
    PART,
    PEER,
    PROMPT,
    SECONDS,
    WORD,
    Field,
    boolean,
    integer,
    list_of,
    number,
    record,
    text,
)
from .values.chat import CHAT, MESSAGE


@dataclass(frozen=True, slots=True)
class Hello:
    """The client's greeting.

    Attributes:
        token: the user's token, where the server requires one.
        features: what the client takes.
        peer: the client is a server of the same cluster, which asks for a user: SPEC.md names the
            keys.
    """

    versions: list[int]
    max_frame: int
    max_streams: int
    token: str | None = field(default=None, repr=False)
    agent: str | None = None
    features: list[str] = field(default_factory=list)
    peer: dict[str, Any] | None = None

    KIND: ClassVar[Kind] = Kind.HELLO
    FIELDS: ClassVar[dict[str, Field]] = {
        "versions": Field(list_of(integer(0, 65_535), 64, 1), required=True),
        "max_frame": Field(integer(MIN_MAX_FRAME, MAX_MAX_FRAME), required=True),
        "max_streams": Field(integer(1, MAX_STREAM), required=True),
        "token": Field(text(4096)),
        "agent": Field(NAME),
        "features": Field(list_of(NAME, 256)),
        "peer": Field(PEER),
    }


#: What servers of a cluster say to each other with a request, and with the reading of a generation.
_BEGUN_ELSEWHERE = {"id": Field(WORD), "api": Field(PARAMS)}
_READ_ELSEWHERE = {"on_disconnect": Field(number(0.0, MAX_LINGER))}


@dataclass(frozen=True, slots=True)
class Generate:
    """Requests a generation from `prompt` (text or token ids) or from chat `messages`.

    Attributes:
        credit: bytes of token frames that may be sent before more credit is given.
        params: sampling parameters by llama-server's names.
        timeout: seconds for the whole request; None: the server's own.
        tokens: also send the id of each piece's last token.
        key: names the request: the same key again means the same generation.
        fresh: the key is random and new, so no finished generation can have it.
        on_disconnect: seconds that it continues without a reader; None: the server's own.
        level: what it survives: memory, process, disk, strict or cluster; None: the server's own.
        cache: may be answered with the stored result of the same request.
        durable: also send durable frames: the pieces that a power cut can no longer lose.
        model: public name of the model that runs it; None: the server's default.
        priority: "high", "normal" or "low"; None: normal.
        deadline: seconds from now by which it must have started to run; None: unbounded.
        splices: also send splice frames: where another upstream continues it.
        chat: options of a chat: tools and the like.
        channels: also send channel frames: where text, reasoning and tool calls begin.
        previous: id of an earlier generation: its conversation goes on with this request.
        transient: all of it is erased a while after its end.
        peer: what another server of the cluster has decided of it: its id, and how its answer is
            written.
    """

    stream: int
    credit: int
    prompt: str | list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    tokens: bool = False
    key: str | None = None
    fresh: bool = False
    on_disconnect: float | None = None
    level: str | None = None
    cache: bool = False
    durable: bool = False
    model: str | None = None
    priority: str | None = None
    deadline: float | None = None
    splices: bool = False
    chat: dict[str, Any] | None = None
    channels: bool = False
    previous: str | None = None
    transient: bool = False
    peer: dict[str, Any] | None = None

    KIND: ClassVar[Kind] = Kind.GENERATE
    FIELDS: ClassVar[dict[str, Field]] = {
        "credit": Field(integer(0, MAX_CREDIT), required=True),
        "prompt": Field(PROMPT),
        "messages": Field(list_of(MESSAGE, 100_000)),
        "params": Field(PARAMS),
        "timeout": Field(SECONDS),
        "tokens": Field(boolean),
        "key": Field(NAME),
        "fresh": Field(boolean),
        "on_disconnect": Field(number(0.0, MAX_LINGER)),
        "level": Field(WORD),
        "cache": Field(boolean),
        "durable": Field(boolean),
        "model": Field(LINE),
        "priority": Field(WORD),
        "deadline": Field(SECONDS),
        "splices": Field(boolean),
        "chat": Field(CHAT),
        "channels": Field(boolean),
        "previous": Field(WORD),
        "transient": Field(boolean),
        "peer": Field(record(_BEGUN_ELSEWHERE, closed=True)),
    }


@dataclass(frozen=True, slots=True)
class Attach:
    """Reads generation `id` from sequence number `first`.

    Attributes:
        credit, tokens, durable, splices, channels: as in Generate.
        epoch: of the resumed stream, from its `Accepted`; None: nothing was read before.
        peer: what another server of the cluster says for those who read it there.
    """

    stream: int
    id: str
    credit: int
    first: int = 0
    epoch: int | None = None
    tokens: bool = False
    durable: bool = False
    splices: bool = False
    channels: bool = False
    peer: dict[str, Any] | None = None

    KIND: ClassVar[Kind] = Kind.ATTACH
    FIELDS: ClassVar[dict[str, Field]] = {
        "id": Field(WORD, required=True),
        "credit": Field(integer(0, MAX_CREDIT), required=True),
        "first": Field(COUNT),
        "epoch": Field(COUNT),
        "tokens": Field(boolean),
        "durable": Field(boolean),
        "splices": Field(boolean),
        "channels": Field(boolean),
        "peer": Field(record(_READ_ELSEWHERE, closed=True)),
    }


@dataclass(frozen=True, slots=True)
class Embed:
    """Requests one vector per text, of the model of this name (None: the server's default)."""

    stream: int
    input: list[str]
    model: str | None = None

    KIND: ClassVar[Kind] = Kind.EMBED
    FIELDS: ClassVar[dict[str, Field]] = {
        "input": Field(list_of(BODY, 65_536, 1), required=True),
        "model": Field(LINE),
    }


@dataclass(frozen=True, slots=True)
class Search:
    """Requests the `k` stored results nearest in meaning to a text.

    Attributes:
        peer: what another server of the cluster asks for in its place: SPEC.md names the keys.
    """

    stream: int
    text: str
    k: int = 10
    peer: dict[str, Any] | None = None

    KIND: ClassVar[Kind] = Kind.SEARCH
    FIELDS: ClassVar[dict[str, Field]] = {
        "text": Field(BODY, required=True),
        "k": Field(integer(1, MAX_HITS)),
        "peer": Field(PART),
    }


@dataclass(frozen=True, slots=True)
class ListGenerations:
    """Requests the user's newest generations, at most `limit`.

    Attributes:
        state: only those in this state; None: in any.
        before: the id of a generation: only those accepted before it.
    """

    stream: int
    limit: int = 20
    state: str | None = None
    before: str | None = None

    KIND: ClassVar[Kind] = Kind.LIST
    FIELDS: ClassVar[dict[str, Field]] = {
        "limit": Field(integer(1, MAX_LISTED)),
        "state": Field(WORD),
        "before": Field(WORD),
    }


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes the stored generation `id` of the user."""

    stream: int
    id: str

    KIND: ClassVar[Kind] = Kind.DELETE
    FIELDS: ClassVar[dict[str, Field]] = {"id": Field(WORD, required=True)}


@dataclass(frozen=True, slots=True)
class Upload:
    """A piece of data that a generate which follows names by this stream's number.

    Attributes:
        data: at most MAX_UPLOAD_PIECE bytes.
        more: whether further pieces follow on the stream.
    """

    stream: int
    data: bytes = field(repr=False)
    more: bool = False

    KIND: ClassVar[Kind] = Kind.UPLOAD


@dataclass(frozen=True, slots=True)
class Status:
    """Requests the server's status report."""

    stream: int

    KIND: ClassVar[Kind] = Kind.STATUS
    FIELDS: ClassVar[dict[str, Field]] = {}


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stops the stream's request; `detach`: stops reading, and lets the generation continue."""

    stream: int
    detach: bool = False

    KIND: ClassVar[Kind] = Kind.CANCEL
    FIELDS: ClassVar[dict[str, Field]] = {"detach": Field(boolean)}


@dataclass(frozen=True, slots=True)
class Credit:
    """Allows `add` further bytes of tokens frames on the stream."""

    stream: int
    add: int

    KIND: ClassVar[Kind] = Kind.CREDIT
