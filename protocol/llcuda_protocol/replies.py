"""The frames of a server: one class per kind. See events.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .kinds import MAX_HITS, MAX_LISTED, MAX_MAX_FRAME, MAX_STREAM, MIN_MAX_FRAME, Kind
from .schema import (
    BODY,
    COUNT,
    ENTRY,
    FOUND,
    HIT,
    LINE,
    NAME,
    PARAMS,
    PROOF,
    SECONDS,
    WORD,
    Field,
    boolean,
    integer,
    list_of,
    map_of,
    number,
    text,
)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's answer: the version chosen, its own limits, the features that it supports.

    Attributes:
        max_upload: bytes of one upload at most; None: it takes none.
        peer: proves to another server of the cluster which server this is.
    """

    version: int
    max_frame: int
    max_streams: int
    agent: str | None = None
    features: list[str] = field(default_factory=list)
    max_upload: int | None = None
    peer: bytes | None = None

    KIND: ClassVar[Kind] = Kind.WELCOME
    FIELDS: ClassVar[dict[str, Field]] = {
        "version": Field(integer(0, 65_535), required=True),
        "max_frame": Field(integer(MIN_MAX_FRAME, MAX_MAX_FRAME), required=True),
        "max_streams": Field(integer(1, MAX_STREAM), required=True),
        "agent": Field(NAME),
        "features": Field(list_of(NAME, 256)),
        "max_upload": Field(COUNT),
        "peer": Field(PROOF),
    }


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is accepted as generation `id`.

    Attributes:
        position: its place in the queue: 1 is the next to run, 0 has a slot already.
        level: what the generation survives: memory, process, disk, strict or cluster.
        epoch: the run that produces it: 0 is the first; after a loss another one continues it.
        cached: a stored result answers it.
        wait: estimated seconds until it runs, where there is an estimate.
        reason: what it waits for.
    """

    stream: int
    id: str
    position: int = 0
    level: str | None = None
    epoch: int = 0
    cached: bool = False
    wait: float | None = None
    reason: str | None = None

    KIND: ClassVar[Kind] = Kind.ACCEPTED
    FIELDS: ClassVar[dict[str, Field]] = {
        "id": Field(WORD, required=True),
        "position": Field(COUNT),
        "level": Field(WORD),
        "epoch": Field(COUNT),
        "cached": Field(boolean),
        "wait": Field(SECONDS),
        "reason": Field(NAME),
    }


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue moved: `position` is the request's new place, 0 when it has a slot.

    `wait` and `reason` are as in Accepted.
    """

    stream: int
    position: int
    wait: float | None = None
    reason: str | None = None

    KIND: ClassVar[Kind] = Kind.QUEUE
    FIELDS: ClassVar[dict[str, Field]] = {
        "position": Field(COUNT, required=True),
        "wait": Field(SECONDS),
        "reason": Field(NAME),
    }


@dataclass(frozen=True, slots=True)
class Splice:
    """Another upstream continues the generation from piece number `position` on.

    `reason` is for people. The frame comes before that piece. `epoch` is that of the pieces from
    there on, where it is another one than before.
    """

    stream: int
    position: int
    reason: str | None = None
    epoch: int | None = None

    KIND: ClassVar[Kind] = Kind.SPLICE
    FIELDS: ClassVar[dict[str, Field]] = {
        "position": Field(COUNT, required=True),
        "reason": Field(NAME),
        "epoch": Field(COUNT),
    }


@dataclass(frozen=True, slots=True)
class Channel:
    """The pieces from number `position` on belong to this channel. The frame comes before them.

    Attributes:
        channel: "text", "reasoning" or "tool_call".
        index: of a tool call: its number in the answer, from 0.
        id, name: of a tool call: its id, and the name of the tool.
    """

    stream: int
    position: int
    channel: str
    index: int = 0
    id: str | None = None
    name: str | None = None

    KIND: ClassVar[Kind] = Kind.CHANNEL
    FIELDS: ClassVar[dict[str, Field]] = {
        "position": Field(COUNT, required=True),
        "channel": Field(WORD, required=True),
        "index": Field(COUNT),
        "id": Field(LINE),
        "name": Field(LINE),
    }


@dataclass(frozen=True, slots=True)
class TopToken:
    """A candidate: token id, its bytes, natural log-probability; None: not known."""

    id: int
    bytes: bytes
    logprob: float | None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token, with the likeliest candidates at its place."""

    id: int
    bytes: bytes
    logprob: float | None
    top: tuple[TopToken, ...] = ()


@dataclass(slots=True)
class Tokens:
    """Pieces of text; the first has sequence number `first`, counted from 0.

    Attributes:
        ids: one entry per piece: the id of its last token, or None. Only where requested.
        logprobs: one entry per piece: its tokens. Only where n_probs requested them.
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
    """Embeddings, the first for input number `first`: each float32, little-endian, as bytes."""

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
        "hits": Field(list_of(HIT, MAX_HITS, 1), required=True),
        "first": Field(COUNT),
    }


@dataclass(frozen=True, slots=True)
class Listing:
    """Generations of a list, newest first, from number `first` on.

    SPEC.md names the keys of an entry.
    """

    stream: int
    entries: list[dict[str, Any]]
    first: int = 0

    KIND: ClassVar[Kind] = Kind.LISTING
    FIELDS: ClassVar[dict[str, Field]] = {
        "entries": Field(list_of(ENTRY, MAX_LISTED, 1), required=True),
        "first": Field(COUNT),
    }


@dataclass(frozen=True, slots=True)
class Deleted:
    """Generation `id` is deleted."""

    stream: int
    id: str

    KIND: ClassVar[Kind] = Kind.DELETED
    FIELDS: ClassVar[dict[str, Field]] = {"id": Field(WORD, required=True)}


@dataclass(frozen=True, slots=True)
class Facts:
    """A piece of what another server of the cluster must know of a generation to follow it.

    Attributes:
        data: at most MAX_FACTS bytes of a document.
        more: whether the next piece is of the same document.
    """

    stream: int
    data: bytes = field(repr=False)
    more: bool = False

    KIND: ClassVar[Kind] = Kind.FACTS


@dataclass(frozen=True, slots=True)
class Done:
    """The request has succeeded.

    Attributes:
        reason: "stop" (end of text or stop string), "length" (n_predict or the context),
            "tool_calls" (the model calls tools; only where channels were asked for), "cancelled",
            "detached", or "complete" (an embed, search or list request, or an upload).
        usage: counts: `prompt_tokens`, `cached_tokens`, `completion_tokens`; of a search
            `searched`, `backlog`.
        timings: milliseconds by phase; SPEC.md names them.
        splices: sequence numbers at which it was continued by prompting with the pieces so far.
        cut: names of the fields that were shortened or left out, to fit the client's max_frame.
        peer: what another server of the cluster has found, which asked for that: see SPEC.md.
    """

    stream: int
    reason: str
    id: str | None = None
    model: str | None = None
    stop: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    splices: list[int] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    peer: dict[str, Any] | None = None

    KIND: ClassVar[Kind] = Kind.DONE
    FIELDS: ClassVar[dict[str, Field]] = {
        "reason": Field(NAME, required=True),
        "id": Field(WORD),
        "model": Field(LINE),
        "stop": Field(BODY),
        "usage": Field(map_of(COUNT, 64)),
        "timings": Field(map_of(number(-1e15, 1e15), 64)),
        "splices": Field(list_of(COUNT, 65_536)),
        "cut": Field(list_of(WORD, 64)),
        "peer": Field(FOUND),
    }


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server is about to stop: open no more streams; open ones have `grace` seconds left."""

    grace: float
    message: str | None = None

    KIND: ClassVar[Kind] = Kind.GO_AWAY
    FIELDS: ClassVar[dict[str, Field]] = {
        "grace": Field(SECONDS, required=True),
        "message": Field(text(4096)),
    }


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to status; SPEC.md names the keys."""

    stream: int
    report: dict[str, Any]

    KIND: ClassVar[Kind] = Kind.REPORT
    FIELDS: ClassVar[dict[str, Field]] = {"report": Field(PARAMS, required=True)}
