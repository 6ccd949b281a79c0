"""Hypothesis strategies: what a server of another version, or a broken one, may say to others."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from llcuda_net.generation.state import TRANSITIONS, State
from llcuda_net.server.tcp.peers.facts import Begun, Over, Run
from llcuda_net.storage.records import Level

TEXT = st.text(max_size=6)
NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1)
FLOATS = st.floats()  # also those that are no number
#: Any value that msgpack can say.
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | FLOATS | TEXT | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
#: The same, by names that are in use.
NAMES = st.sampled_from(
    ["prompt", "messages", "n_predict", "n_probs", "seed", "name", "tools", "format", "role"]
)
DICTS = st.dictionaries(NAMES | TEXT, VALUES, max_size=3)
_PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=2)
_STATES = st.sampled_from(State)

RUNS = st.builds(
    Run,
    _STATES,
    TEXT,
    DICTS,
    _PAIRS,
    st.lists(st.tuples(NUMBERS, TEXT), max_size=2),
)
BEGUN = st.builds(
    Begun,
    owner=st.just("ann") | TEXT,
    created=NUMBERS,
    level=st.sampled_from(Level),
    params=DICTS,
    timeout=FLOATS,
    on_disconnect=FLOATS,
    age=FLOATS,
    run=RUNS,
    key=st.none() | TEXT,
    priority=st.integers(0, 2) | NUMBERS,
    wanted=st.none() | TEXT,
    seed=st.none() | NUMBERS,
    api=st.none() | DICTS,
    asked=st.none() | st.tuples(VALUES, VALUES, VALUES),
)
OVERS = st.builds(
    Over,
    st.sampled_from([one for one in State if not TRANSITIONS[one]]),
    st.none() | NUMBERS,
    TEXT,
    st.none() | TEXT,
    st.none() | TEXT,
    st.dictionaries(TEXT, NUMBERS, max_size=2),
    st.dictionaries(TEXT, FLOATS, max_size=2),
    _PAIRS,
    st.none() | st.tuples(TEXT, TEXT, st.booleans(), st.none() | FLOATS),
    st.none() | st.lists(NUMBERS, max_size=3),
)
DOCUMENTS = BEGUN | RUNS | OVERS

#: Any bytes, and lengths of an array, a map, a string and bytes that nothing follows.
_PIECES = st.binary(max_size=3) | st.sampled_from(
    [lead + b"\xff\xff\xff\xff" for lead in (b"\xdd", b"\xdf", b"\xdb", b"\xc6")]
)


def damaged(of: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Values as msgpack, with what happens to bytes: cut, changed, lengths that are not there."""
    encoded = st.one_of(of, VALUES).map(msgspec.msgpack.encode)

    @st.composite
    def draw(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(encoded))
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(data)))
            data[at : at + draw(st.integers(0, 3))] = draw(_PIECES)
        return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)

    return draw() | st.binary(max_size=40)
