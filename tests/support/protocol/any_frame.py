"""Hypothesis strategies: frames of every kind, with any values that the protocol allows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Channel,
    Credit,
    Delete,
    Deleted,
    Done,
    Durable,
    Embed,
    Error,
    ErrorCode,
    Facts,
    Frame,
    Generate,
    GoAway,
    Hello,
    Hits,
    ListGenerations,
    Listing,
    Ping,
    Pong,
    Queue,
    Report,
    Role,
    Search,
    Splice,
    Status,
    TokenLogprob,
    Tokens,
    TopToken,
    Upload,
    Vectors,
    Welcome,
)
from llcuda_protocol.kinds import (
    MAX_CREDIT,
    MAX_HITS,
    MAX_LINGER,
    MAX_LISTED,
    MAX_MAX_FRAME,
    MAX_SEQUENCE,
    MAX_STREAM,
    MAX_TOKEN_ID,
    MIN_MAX_FRAME,
    SENT_BY,
    Kind,
)

STREAMS = st.integers(1, MAX_STREAM)
TEXT = st.text(max_size=12)
COUNTS = st.integers(0, MAX_SEQUENCE)
SECONDS = st.floats(0, 1e9)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
JSON_MAPS = st.dictionaries(TEXT, JSON, max_size=4)
TOKEN_IDS = st.integers(0, MAX_TOKEN_ID)
LOGPROBS = st.none() | st.floats(-3.4028235e38, 0)
TOPS = st.builds(TopToken, TOKEN_IDS, st.binary(max_size=5), LOGPROBS)
TOKEN_LOGPROBS = st.builds(
    TokenLogprob,
    TOKEN_IDS,
    st.binary(max_size=5),
    LOGPROBS,
    st.lists(TOPS, max_size=2).map(tuple),
)
HITS = st.fixed_dictionaries(
    {"id": TEXT, "score": st.floats(-1, 1), "created": st.floats(0, 1e12)},
    optional={
        "state": TEXT,
        "owner": TEXT,
        "model": TEXT,
        "tokens": COUNTS,
        "preview": TEXT,
        "text": TEXT,
    },
)
ENTRIES = st.fixed_dictionaries(
    {"id": TEXT, "state": TEXT, "created": st.floats(0, 1e12)},
    optional={
        "owner": TEXT,
        "model": TEXT,
        "tokens": COUNTS,
        "position": COUNTS,
        "preview": TEXT,
        "text": TEXT,
    },
)
NAMES = st.text(min_size=1, max_size=12)
PEERS = st.fixed_dictionaries(
    {"server": COUNTS, "to": COUNTS, "user": TEXT, "nonce": st.binary(max_size=64)}
)
#: Where the bytes of an image or of audio are: in the part, or in an upload.
_INSIDE = st.fixed_dictionaries({"data": st.binary(min_size=1, max_size=9)})
_UPLOADED = st.fixed_dictionaries({"upload": STREAMS})
_IMAGES = {"type": st.just("image"), "media_type": st.sampled_from(["image/png", "image/svg+xml"])}
_AUDIO = {"type": st.just("audio"), "format": st.sampled_from(["wav", "mp3"])}
PARTS = st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}) | st.builds(
    lambda described, held: described | held,
    st.fixed_dictionaries(_IMAGES) | st.fixed_dictionaries(_AUDIO),
    _INSIDE | _UPLOADED,
)
CONTENTS = TEXT | st.lists(PARTS, min_size=1, max_size=3)
TOOL_CALLS = st.fixed_dictionaries(
    {
        "id": TEXT,
        "function": st.fixed_dictionaries({"name": NAMES, "arguments": TEXT}),
    },
    optional={"type": st.just("function")},
)
#: Of any role; of the assistant, which may call tools; and what these gave.
MESSAGES = (
    st.fixed_dictionaries({"role": TEXT, "content": CONTENTS}, optional={"name": TEXT})
    | st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "tool_calls": st.lists(TOOL_CALLS, min_size=1, max_size=2),
        },
        optional={"content": CONTENTS, "reasoning_content": TEXT},
    )
    | st.fixed_dictionaries(
        {"role": st.just("tool"), "content": CONTENTS}, optional={"tool_call_id": TEXT}
    )
)
_FUNCTION = st.just("function")
TOOLS = st.fixed_dictionaries(
    {
        "type": _FUNCTION,
        "function": st.fixed_dictionaries(
            {"name": NAMES},
            optional={"description": TEXT, "parameters": JSON_MAPS, "strict": st.booleans()},
        ),
    }
)
CHATS = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.lists(TOOLS, max_size=3),
        "tool_choice": st.sampled_from(["none", "auto", "required"])
        | st.fixed_dictionaries(
            {"type": _FUNCTION, "function": st.fixed_dictionaries({"name": NAMES})}
        ),
        "parallel_tool_calls": st.booleans(),
        "chat_template_kwargs": JSON_MAPS,
        "reasoning_effort": NAMES,
    },
)


@st.composite
def tokens(
    draw: st.DrawFn,
    stream: st.SearchStrategy[int] = STREAMS,
    first: st.SearchStrategy[int] = COUNTS,
) -> Tokens:
    """A tokens frame whose columns are of one length."""
    pieces = draw(st.lists(st.text(max_size=20), min_size=1, max_size=6))
    size = len(pieces)

    def column(entry: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | st.lists(entry, min_size=size, max_size=size))

    ids = column(st.none() | TOKEN_IDS)
    logprobs = column(st.lists(TOKEN_LOGPROBS, max_size=2))
    return Tokens(draw(stream), draw(first), pieces, ids, logprobs)


@st.composite
def vectors(draw: st.DrawFn, stream: st.SearchStrategy[int] = STREAMS) -> Vectors:
    """A vectors frame of one dimension."""
    size = 4 * draw(st.integers(0, 4))
    one = st.binary(min_size=size, max_size=size)
    return Vectors(draw(stream), draw(COUNTS), draw(st.lists(one, min_size=1, max_size=3)))


def _frames(stream: st.SearchStrategy[int]) -> dict[Kind, st.SearchStrategy[Frame]]:
    limits = (st.integers(MIN_MAX_FRAME, MAX_MAX_FRAME), st.integers(1, MAX_STREAM))
    version = st.integers(0, 65_535)
    optional = st.none() | TEXT
    return {
        Kind.HELLO: st.builds(
            Hello,
            st.lists(version, min_size=1, max_size=4),
            *limits,
            optional,
            optional,
            st.lists(TEXT, max_size=3),
            st.none() | PEERS,
        ),
        Kind.WELCOME: st.builds(
            Welcome,
            version,
            *limits,
            optional,
            st.lists(TEXT, max_size=3),
            st.none() | COUNTS,
            st.none() | st.binary(max_size=32),
        ),
        Kind.GENERATE: st.builds(
            Generate,
            stream,
            st.integers(0, MAX_CREDIT),
            st.none() | TEXT | st.lists(TOKEN_IDS, max_size=5),
            st.none() | st.lists(MESSAGES, max_size=3),
            JSON_MAPS,
            st.none() | SECONDS,
            st.booleans(),
            optional,
            st.booleans(),
            st.none() | st.floats(0, MAX_LINGER) | st.integers(0, MAX_LINGER),
            optional,
            st.booleans(),
            st.booleans(),
            optional,
            optional,
            st.none() | SECONDS,
            st.booleans(),
            st.none() | CHATS,
            st.booleans(),
            optional,
            st.booleans(),
            st.none() | st.fixed_dictionaries({}, optional={"id": TEXT, "api": JSON_MAPS}),
        ),
        Kind.ATTACH: st.builds(
            Attach,
            stream,
            TEXT,
            st.integers(0, MAX_CREDIT),
            COUNTS,
            st.none() | COUNTS,
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.none() | st.fixed_dictionaries({}, optional={"on_disconnect": SECONDS}),
        ),
        Kind.EMBED: st.builds(Embed, stream, st.lists(TEXT, min_size=1, max_size=3), optional),
        Kind.SEARCH: st.builds(Search, stream, TEXT, st.integers(1, MAX_HITS)),
        Kind.LIST: st.builds(
            ListGenerations, stream, st.integers(1, MAX_LISTED), optional, optional
        ),
        Kind.DELETE: st.builds(Delete, stream, TEXT),
        Kind.UPLOAD: st.builds(Upload, stream, st.binary(max_size=20), st.booleans()),
        Kind.STATUS: st.builds(Status, stream),
        Kind.CANCEL: st.builds(Cancel, stream, st.booleans()),
        Kind.CREDIT: st.builds(Credit, stream, st.integers(1, MAX_CREDIT)),
        Kind.PING: st.builds(Ping, st.binary(max_size=64)),
        Kind.PONG: st.builds(Pong, st.binary(max_size=64)),
        Kind.ACCEPTED: st.builds(
            Accepted,
            stream,
            TEXT,
            COUNTS,
            optional,
            COUNTS,
            st.booleans(),
            st.none() | SECONDS,
            optional,
        ),
        Kind.QUEUE: st.builds(Queue, stream, COUNTS, st.none() | SECONDS, optional),
        Kind.SPLICE: st.builds(Splice, stream, COUNTS, optional, st.none() | COUNTS),
        Kind.CHANNEL: st.builds(Channel, stream, COUNTS, TEXT, COUNTS, optional, optional),
        Kind.FACTS: st.builds(Facts, stream, st.binary(max_size=20), st.booleans()),
        Kind.DELETED: st.builds(Deleted, stream, TEXT),
        Kind.TOKENS: tokens(stream),
        Kind.DURABLE: st.builds(Durable, stream, COUNTS),
        Kind.VECTORS: vectors(stream),
        Kind.HITS: st.builds(Hits, stream, st.lists(HITS, min_size=1, max_size=3), COUNTS),
        Kind.LISTING: st.builds(Listing, stream, st.lists(ENTRIES, min_size=1, max_size=3), COUNTS),
        Kind.DONE: st.builds(
            Done,
            stream,
            TEXT,
            optional,
            optional,
            optional,
            st.dictionaries(TEXT, COUNTS, max_size=3),
            st.dictionaries(TEXT, st.floats(-1e15, 1e15), max_size=3),
            st.lists(COUNTS, max_size=3),
            st.lists(TEXT, max_size=2),
        ),
        Kind.ERROR: st.builds(
            Error,
            stream | st.just(0),
            st.sampled_from(ErrorCode).map(str) | TEXT,
            TEXT,
            st.booleans(),
            st.none() | SECONDS,
            st.none() | COUNTS,
        ),
        Kind.GO_AWAY: st.builds(GoAway, SECONDS, optional),
        Kind.REPORT: st.builds(Report, stream, JSON_MAPS),
    }


#: A strategy for each kind. To build them takes much longer than to draw from them.
FRAMES = _frames(STREAMS)
ANY_FRAME: st.SearchStrategy[Frame] = st.one_of(*FRAMES.values())
#: By role: a frame that it may send at one time or another.
FROM: dict[Role, st.SearchStrategy[Frame]] = {
    role: st.one_of(*(FRAMES[kind] for kind in sorted(SENT_BY[role]))) for role in Role
}
