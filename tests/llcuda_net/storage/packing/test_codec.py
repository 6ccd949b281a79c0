"""Contents: small ones plain, large ones as zstd frames that any earlier version can read."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import COMPRESS, Codec

TEXT = b"What is a slot? A slot is one parallel sequence of an upstream. " * 20
#: TEXT as versions before 0.2.0 wrote it, with another library (zstandard 0.25.0, level 3).
EARLIER = bytes.fromhex(
    "0128b52ffd6000042d0200740357686174206973206120736c6f743f20416f6e6520706172616c6c656c2073"
    "657175656e6365206f6620616e20757073747265616d2e200300ee6508ff351938a12c01"
    ""
)


def test_what_an_earlier_version_wrote_is_read() -> None:
    assert Codec().unpack(EARLIER) == TEXT


def test_the_frame_is_the_earlier_one() -> None:
    """So that the earlier version reads it: with its size at its beginning."""
    assert Codec().pack(TEXT) == EARLIER


@given(st.lists(st.binary(max_size=3 * COMPRESS).map(lambda one: one * 2), max_size=5))
def test_one_codec_packs_many(contents: list[bytes]) -> None:
    codec = Codec()
    packed = [codec.pack(one) for one in contents]
    assert [codec.unpack(one) for one in packed] == contents


def test_what_does_not_shrink_and_what_is_short_stays_plain() -> None:
    codec = Codec()
    noise = random.Random(1).randbytes(4000)
    assert codec.pack(noise) == b"\x00" + noise
    assert codec.pack(b"a" * (COMPRESS - 1))[:1] == b"\x00"
    assert codec.pack(b"a" * COMPRESS)[:1] == b"\x01"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02abc",
        b"\x01",
        b"\x01abc",
        EARLIER[:-1],
        EARLIER[:12],
        EARLIER + b"\x00",
        EARLIER + EARLIER[1:],
    ],
    ids=["empty", "tag", "no frame", "no magic", "cut", "cut early", "more", "two"],
)
def test_damage_is_one_error(content: bytes) -> None:
    with pytest.raises(StorageError, match="does not decode"):
        Codec().unpack(content)


@given(st.integers(5, len(EARLIER) - 1), st.integers(1, 255))
def test_a_changed_byte_never_ends_in_another_error(place: int, change: int) -> None:
    content = bytearray(EARLIER)
    content[place] ^= change
    with suppress(StorageError):  # a frame has no checksum: some changes are not seen here
        Codec().unpack(bytes(content))


def test_a_frame_that_claims_to_be_huge_is_damage() -> None:
    """Its first bytes say 16 EiB, or nothing: no memory is taken for it."""
    magic = bytes.fromhex("28b52ffd")
    for header in (b"\xe0" + b"\xff" * 8, b"\x00\x58"):
        with pytest.raises(StorageError, match="does not decode"):
            Codec().unpack(b"\x01" + magic + header + b"\x01\x00\x00")
