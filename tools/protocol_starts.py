"""Connections in the states in which test vectors and fuzzing begin; vectors/README.md lists them.

Both ends announce small limits, so that short inputs reach them: frames of 16384 bytes, 8 streams.
"""

from __future__ import annotations

from llcuda_protocol import (
    Accepted,
    Attach,
    Connection,
    Delete,
    Done,
    Durable,
    Embed,
    Frame,
    Generate,
    GoAway,
    Hello,
    Hits,
    Limits,
    ListGenerations,
    Listing,
    Role,
    Search,
    Status,
    Tokens,
    Upload,
    Welcome,
)

LIMITS = Limits(max_frame=16_384, max_streams=8)
CREDIT = 100

_HELLO = Hello([1], LIMITS.max_frame, LIMITS.max_streams)
_WELCOME = Welcome(1, LIMITS.max_frame, LIMITS.max_streams)
_REQUESTS: list[Frame] = [
    Generate(1, CREDIT, prompt="a"),
    Generate(2, CREDIT, prompt="b"),
    Embed(3, ["a", "b"]),
    Status(4),
    Generate(5, CREDIT, prompt="c"),
]
_REPLIES: list[Frame] = [
    Accepted(1, "g1"),
    Tokens(1, 0, ["x", "y"]),
    Accepted(5, "g5"),
    Done(5, "stop"),
]
#: The states by name, each with what was said to reach it: first the client, then the server.
STARTS: dict[str, list[tuple[Role, Frame]]] = {"new": []}
STARTS["greeted"] = [(Role.CLIENT, _HELLO)]
STARTS["open"] = [*STARTS["greeted"], (Role.SERVER, _WELCOME)]
STARTS["streams"] = [
    *STARTS["open"],
    *((Role.CLIENT, request) for request in _REQUESTS),
    *((Role.SERVER, reply) for reply in _REPLIES),
]
STARTS["attached"] = [
    *STARTS["open"],
    (Role.CLIENT, Attach(1, "g1", CREDIT, 5, 0, durable=True)),
    (Role.CLIENT, Attach(2, "g2", CREDIT, 9)),
    (Role.SERVER, Accepted(1, "g1", level="disk", epoch=1)),
    (Role.SERVER, Tokens(1, 5, ["x", "y"])),
    (Role.SERVER, Durable(1, 6)),
]
STARTS["searching"] = [
    *STARTS["open"],
    (Role.CLIENT, Search(1, "a", 3)),
    (Role.CLIENT, Search(2, "b")),
    (Role.SERVER, Hits(1, [{"id": "g1", "score": 0.5, "created": 1.0}])),
]
STARTS["listing"] = [
    *STARTS["open"],
    (Role.CLIENT, ListGenerations(1, 3, "done")),
    (Role.CLIENT, ListGenerations(2)),
    (Role.SERVER, Listing(1, [{"id": "g1", "state": "done", "created": 1.0}])),
]
STARTS["uploading"] = [
    *STARTS["open"],
    (Role.CLIENT, Upload(1, b"abc", more=True)),
    (Role.CLIENT, Upload(2, b"def")),
    (Role.CLIENT, Delete(3, "g3")),
    (Role.SERVER, Done(2, "complete")),
]
STARTS["draining"] = [*STARTS["streams"], (Role.SERVER, GoAway(10.0))]


def begin(role: Role, start: str) -> Connection:
    """A new connection of this role in a state."""
    ends = {each: Connection(each, LIMITS) for each in Role}
    for sender, frame in STARTS[start]:
        receiver = Role.SERVER if sender is Role.CLIENT else Role.CLIENT
        ends[receiver].receive_data(ends[sender].send(frame))
        if ends[receiver].next_event() != frame:
            raise AssertionError(f"{frame} did not arrive")
    return ends[role]
