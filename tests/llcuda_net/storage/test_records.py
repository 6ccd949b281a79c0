"""Records go through bytes unchanged, and bytes that are no records end in one error only."""

from __future__ import annotations

import contextlib
from hashlib import blake2b
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import StorageError
from llcuda_net.storage import records
from llcuda_net.storage.records import (
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Forgotten,
    Level,
    Opened,
    Splice,
    Spliced,
    TokenLog,
)
from tests.support.storage.records import opened, result

texts = st.text(max_size=20)
counts = st.integers(0, 2**63 - 1)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
maps = st.dictionaries(texts, values, max_size=4)
ids = st.none() | st.integers(0, 2**32)
every_record = st.one_of(
    st.builds(
        Opened,
        slot=counts,
        generation=texts,
        request=maps,
        level=st.sampled_from(Level),
        key=st.none() | texts,
        request_hash=st.binary(max_size=32),
        owner=texts,
        on_disconnect=st.none() | texts | st.floats(0, 1e6),
        created=counts,
    ),
    st.builds(
        Appended,
        slot=counts,
        first=counts,
        pieces=st.lists(texts),
        ids=st.lists(ids),
        counts=st.none() | st.lists(st.integers(0, 2**20)),
    ),
    st.builds(
        Dispatched,
        slot=counts,
        number=counts,
        upstream=texts,
        model=maps,
        prompt=st.none() | texts | st.lists(st.integers(0, 2**32)),
    ),
    st.builds(
        Concluded,
        slot=counts,
        count=counts,
        reason=texts,
        stop=st.none() | texts,
        usage=st.dictionaries(texts, st.integers(0, 2**40), max_size=3),
    ),
    st.builds(Spliced, slot=counts, position=counts, upstream=texts),
    st.builds(
        Ended,
        slot=counts,
        count=counts,
        state=texts,
        error=st.none() | maps,
        usage=st.dictionaries(texts, st.integers(0, 2**40), max_size=3),
        timings=st.dictionaries(texts, st.floats(allow_nan=False), max_size=3),
        model=maps,
        seed=st.none() | st.integers(-(2**31), 2**32),
        cacheable=st.booleans(),
    ),
    st.builds(Forgotten, slot=counts),
)


@given(every_record)
def test_a_record_survives_its_encoding(record: records.Record) -> None:
    assert records.decode(records.encode(record)) == record


@given(st.binary(max_size=200))
def test_random_bytes_end_in_one_error(data: bytes) -> None:
    with contextlib.suppress(StorageError):
        records.decode(data)


@given(every_record, st.data())
def test_damaged_records_end_in_one_error(record: records.Record, data: st.DataObject) -> None:
    damaged = bytearray(records.encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StorageError):
        records.decode(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


def test_a_result_survives_its_encoding_and_keeps_its_bytes() -> None:
    before = result(1, splices=[Splice(3, "http://b", 9)], on_disconnect=30.0, level=Level.STRICT)
    before.log.logprobs = [records.packed([[5, b"x", -0.5, [[5, b"x", -0.5]]]])] * 8
    data = records.encode(before)
    after = msgspec.msgpack.decode(data, type=records.Result)
    assert after == before
    assert records.encode(after) == data


def test_results_have_the_hash_that_they_were_stored_with() -> None:
    """Of the first version's bytes; counts are of use only while a generation is open."""
    one, none, likely = result(1), result(1, tokens=0), result(2)
    likely.log.logprobs = [records.packed([[5, b"x", -0.5, [[5, b"x", -0.5]]]])] * 8
    hashes = [blake2b(records.encode(r), digest_size=16).hexdigest() for r in (one, none, likely)]
    assert hashes == [
        "1ec3ccc6672844904e5a0280759e6bc7",
        "62bee8980759291e8846ba6f631178fb",
        "fa57dafc044c22bb89980e3da9fe7892",
    ]
    log = TokenLog(["a"], [1], counts=[2])
    assert log.tokens == 2
    assert TokenLog(["a"], [1]).tokens == 1
    stored = records.Result.of(opened(1), log, Ended(state="done"), [])
    assert stored.log == TokenLog(["a"], [1])
    assert b"counts" not in records.encode(stored)


def test_a_token_costs_a_byte_for_each_field_that_came_later() -> None:
    record = Appended(1, 2, ["a"], [3])
    old = records.encode([2, 1, 2, ["a"], [3], None])
    assert len(records.encode(record)) == len(old) + 2  # counts, switches
    assert records.decode(old) == record


def test_what_msgpack_cannot_hold_is_refused() -> None:
    bad: Any
    for bad in ({"a": object()}, {"a": 2**70}, {"a": "\ud800"}):
        with pytest.raises(StorageError) as caught:
            records.encode(opened(1, request=bad))
        assert caught.value.code == StorageError.INVALID


def test_equal_requests_have_equal_hashes() -> None:
    assert records.hash_of({"a": 1, "b": [2]}) == records.hash_of({"b": [2], "a": 1})
    assert records.hash_of({"a": 1}) != records.hash_of({"a": 2})


def test_a_continued_or_failed_generation_never_answers_from_the_cache() -> None:
    end = Ended(state="done", cacheable=True)
    assert records.Result.of(opened(1), TokenLog(), end, []).cacheable
    assert not records.Result.of(opened(1), TokenLog(), end, [Splice(2, "http://b")]).cacheable
    failed = Ended(state="failed", cacheable=True)
    assert not records.Result.of(opened(1), TokenLog(), failed, []).cacheable
