"""One small frame of each kind, by stream."""

from __future__ import annotations

from collections.abc import Callable

from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Credit,
    Done,
    Durable,
    Embed,
    Error,
    Frame,
    Generate,
    GoAway,
    Hello,
    Hits,
    Kind,
    ListGenerations,
    Listing,
    Ping,
    Pong,
    Queue,
    Report,
    Search,
    Splice,
    Status,
    Tokens,
    Vectors,
    Welcome,
)

EXAMPLES: dict[Kind, Callable[[int], Frame]] = {
    Kind.HELLO: lambda _: Hello([1], 16_384, 8),
    Kind.GENERATE: lambda stream: Generate(stream, 10, prompt="a"),
    Kind.ATTACH: lambda stream: Attach(stream, "g", 10, 3),
    Kind.CANCEL: Cancel,
    Kind.EMBED: lambda stream: Embed(stream, ["a"]),
    Kind.SEARCH: lambda stream: Search(stream, "a"),
    Kind.LIST: ListGenerations,
    Kind.STATUS: Status,
    Kind.PING: lambda _: Ping(b"p"),
    Kind.CREDIT: lambda stream: Credit(stream, 1),
    Kind.WELCOME: lambda _: Welcome(1, 16_384, 8),
    Kind.ACCEPTED: lambda stream: Accepted(stream, "g"),
    Kind.QUEUE: lambda stream: Queue(stream, 1),
    # The next piece of the one stream that runs in protocol_starts is number 2.
    Kind.TOKENS: lambda stream: Tokens(stream, 2, ["a"]),
    Kind.SPLICE: lambda stream: Splice(stream, 2),
    Kind.DURABLE: lambda stream: Durable(stream, 2),
    Kind.DONE: lambda stream: Done(stream, "stop"),
    Kind.ERROR: lambda stream: Error(stream, "internal", "x"),
    Kind.GO_AWAY: lambda _: GoAway(1.0),
    Kind.VECTORS: lambda stream: Vectors(stream, 0, [b"1234"]),
    Kind.HITS: lambda stream: Hits(stream, [{"id": "g", "score": 0.5, "created": 1.0}]),
    Kind.LISTING: lambda stream: Listing(stream, [{"id": "g", "state": "done", "created": 1.0}]),
    Kind.REPORT: lambda stream: Report(stream, {"a": 1}),
    Kind.PONG: lambda _: Pong(b"p"),
}
