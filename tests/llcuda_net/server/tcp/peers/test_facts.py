"""Documents about a generation, from a server that may say anything."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given

from llcuda_net.server.tcp.peers.facts import Assembly, Begun, Over, Run, frames
from llcuda_protocol import Facts
from tests.support.cluster.any_document import DOCUMENTS, damaged

#: Arrays in each other.
DEEP = b"\x91" * 10_000


@given(DOCUMENTS)
def test_a_document_that_is_taken_is_as_it_was_sent(document: Begun | Run | Over) -> None:
    assembly = Assembly(1 << 20)
    with contextlib.suppress(ValueError):  # it has a value that cannot be
        *before, last = [assembly.add(frame) for frame in frames(1, document)]
        assert not any(before)
        assert last == document


@given(damaged(DOCUMENTS))
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(Assembly(1 << 20).add(Facts(1, data, False)), Begun | Run | Over)


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ValueError, match="recursion"):
        Assembly(1 << 20).add(Facts(1, b"\x82\xa4type\xa3run\xa5model\x81\xa0" + DEEP, False))


def test_no_more_than_a_document_may_have_is_kept() -> None:
    assembly = Assembly(100)
    assembly.add(Facts(1, b"." * 60, True))
    with pytest.raises(ValueError, match="more than 100 bytes"):
        assembly.add(Facts(1, b"." * 60, True))
