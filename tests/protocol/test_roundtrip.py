"""What goes in comes out: every frame, however it is cut; and any bytes at all are survived."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llcuda_protocol import PREFACE, Error, Frame, Generate, Role, Tokens
from llcuda_protocol.frames import decode, encode, encode_tokens
from llcuda_protocol.kinds import HEADER, Kind
from llcuda_protocol.reader import Reader
from tests.support.protocol.any_frame import ANY_FRAME, FRAMES
from tests.support.protocol.every import every
from tools.protocol_harness import make_check
from tools.protocol_starts import STARTS, begin

QUICK = settings(max_examples=100, deadline=None)
ANY_TOKENS = FRAMES[Kind.TOKENS]
CHECKS: dict[tuple[str, str], Callable[[bytes], None]] = {
    (role, start): make_check(Role(role), start) for role in Role for start in STARTS
}
FOLDER = Path(__file__).parents[2] / "protocol" / "vectors"
WIRES = sorted(
    {
        vector["hex"]
        for path in FOLDER.glob("*.json")
        for vector in json.loads(path.read_text()).get("vectors", [])
        if len(vector["hex"]) < 1000
    }
)


@given(ANY_TOKENS)
@QUICK
def test_encoded_log_probabilities_make_the_same_frame(event: Tokens) -> None:
    if event.logprobs is None:
        return
    plain = [
        [[t.id, t.bytes, t.logprob, [[c.id, c.bytes, c.logprob] for c in t.top]] for t in piece]
        for piece in event.logprobs
    ]
    packed = [msgpack.packb(piece) for piece in plain]
    bare = replace(event, logprobs=None)
    assert encode_tokens(bare, packed) == encode(event)
    with pytest.raises(ValueError, match="one entry per piece"):
        encode_tokens(bare, [*packed, b"\x90"])


def test_every_kind_comes_back() -> None:
    every(((kind.name, kind) for kind in Kind), comes_back)


def comes_back(kind: Kind) -> None:
    @given(FRAMES[kind])
    @settings(max_examples=25, deadline=None)
    def check(event: Frame) -> None:
        wire = encode(event)
        assert int.from_bytes(wire[:HEADER], "big") == len(wire) - HEADER
        assert decode(wire[HEADER:]) == event

    check()


@QUICK
@given(ANY_FRAME)
@example(Generate(1, 0, prompt=[]))
@example(Generate(1, 0, prompt="", messages=[]))
@example(Error(0, "", "", False, 0.0))
@example(Tokens(1, 0, [""], [None], [[]]))
def test_encoding_is_stable(event: Frame) -> None:
    wire = encode(event)
    again = decode(wire[HEADER:])
    assert again is not None
    assert encode(again) == wire


@QUICK
@given(st.lists(ANY_FRAME, max_size=5), st.data())
def test_any_chunking_gives_the_same_frames(events: list[Frame], data: st.DataObject) -> None:
    wire = PREFACE + b"".join(map(encode, events))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=20)) | {0, len(wire)})
    reader = Reader()
    reader.max_frame = 1 << 20
    found = []
    for start, end in itertools.pairwise(cuts):
        reader.feed(wire[start:end])
        while (body := reader.next_body()) is not None:
            found.append(decode(body))
    assert found == events
    assert len(reader) == 0


@QUICK
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    every(CHECKS.items(), lambda check: check(data))


def test_mutated_frames() -> None:
    every(CHECKS.items(), survives_mutations)


def survives_mutations(check: Callable[[bytes], None]) -> None:
    @given(st.data())
    @settings(max_examples=25, deadline=None)
    def mutate(data: st.DataObject) -> None:
        check(mutated(data))

    mutate()


def mutated(data: st.DataObject) -> bytes:
    """Good frames, one after the other, with some bytes changed, and a first byte for the check."""
    wire = bytearray.fromhex("".join(data.draw(st.lists(st.sampled_from(WIRES), max_size=3))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(wire)))
        wire[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    return bytes([data.draw(st.sampled_from([0, 1, 7, 0x40, 0x80, 0x83]))]) + wire


def test_a_connection_can_be_frozen() -> None:
    # The harness thaws one for each input instead of going through a handshake.
    thawed = pickle.loads(pickle.dumps(begin(Role.SERVER, "streams")))
    assert thawed.open_streams == begin(Role.SERVER, "streams").open_streams == 4
