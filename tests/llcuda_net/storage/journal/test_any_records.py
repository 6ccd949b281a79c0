"""Records that are nonsense, as a broken server may leave them in a database for another one."""

from __future__ import annotations

import contextlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.assembly import Collector
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.records import (
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Forgotten,
    Opened,
    Spliced,
    Stored,
    Switched,
    Synced,
)
from tests.support.cluster.any_document import DICTS, FLOATS, NUMBERS, TEXT, VALUES, damaged

SLOTS = st.integers(1, 2)
INTEGERS = st.integers(-2, 6) | NUMBERS
RAW = VALUES.map(lambda value: msgspec.Raw(msgspec.msgpack.encode(value)))
PAIRS = st.lists(st.tuples(INTEGERS, INTEGERS), max_size=2)
RECORDS = st.one_of(
    st.builds(
        Opened,
        slot=SLOTS,
        generation=st.sampled_from(["a", "b"]),
        request=DICTS,
        key=st.none() | TEXT,
        created=NUMBERS,
        on_disconnect=st.none() | TEXT | FLOATS,
    ),
    st.builds(
        Appended,
        SLOTS,
        INTEGERS,
        st.lists(TEXT, max_size=3),
        st.lists(st.none() | NUMBERS, max_size=3),
        st.none() | st.lists(RAW, max_size=3),
        st.none() | st.lists(NUMBERS, max_size=3),
        INTEGERS,
    ),
    st.builds(Spliced, SLOTS, INTEGERS, TEXT, INTEGERS),
    st.builds(Switched, SLOTS, INTEGERS, TEXT, INTEGERS),
    st.builds(
        Ended,
        slot=SLOTS,
        count=INTEGERS,
        state=st.sampled_from(["done", "failed"]) | TEXT,
        timings=st.dictionaries(TEXT, FLOATS, max_size=1),
        model=DICTS,
        number=INTEGERS,
    ),
    st.builds(Dispatched, slot=SLOTS, number=INTEGERS, upstream=TEXT, prompt=st.none() | TEXT),
    st.builds(Concluded, slot=SLOTS, count=INTEGERS, reason=TEXT),
    st.builds(Forgotten, SLOTS, TEXT, INTEGERS),
    st.builds(Synced, SLOTS, PAIRS),
    st.builds(Stored, SLOTS, st.lists(st.tuples(TEXT, INTEGERS), max_size=2)),
)
BATCHES = st.lists(RECORDS, max_size=8).map(msgspec.msgpack.encode)


@given(st.lists(BATCHES | damaged(st.lists(RECORDS, max_size=3)), max_size=4))
def test_what_is_found_is_whole_and_is_found_again(batches: list[bytes]) -> None:
    collector = Collector((), {})
    for batch in batches:
        with contextlib.suppress(StorageError):
            collector.add_array(batch)
    for found in collector.generations():
        log, count = found.log, found.packed.count
        assert len(log.pieces) == len(log.ids) == count
        assert log.logprobs is None or len(log.logprobs) == count
        assert log.counts is None or len(log.counts) == count
        assert all(0 <= one.position <= count for one in found.splices)
        assert all(0 <= one.position < count for one in found.switches)
        again = Collector((), {})
        again.add([*restated(found, 1)])
        (same,) = again.generations()
        assert (same.log, same.switches, same.splices) == (log, found.switches, found.splices)
