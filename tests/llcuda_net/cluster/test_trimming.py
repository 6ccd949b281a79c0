"""What is deleted of a journal: never what an open generation needs, and nearly all else."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.cluster.trimming import Trimming

#: Records per batch: slots, each with the bytes of its record; and what ends then.
BATCHES = st.lists(
    st.tuples(
        st.dictionaries(st.integers(1, 6), st.integers(1, 50), max_size=4),
        st.sets(st.integers(1, 6), max_size=2),
    ),
    max_size=60,
)


class Journal:
    """Batches of records `(slot, place in its log)`, trimmed as Trimming says."""

    def __init__(self, keep: int, copy: int) -> None:
        self.trimming = Trimming(keep, copy)
        self.batches: dict[int, list[tuple[int, int, int]]] = {}
        self.lengths: defaultdict[int, int] = defaultdict(int)
        self.over: set[int] = set()
        self.number = 0

    def add(self, sizes: dict[int, int], over: set[int]) -> None:
        self.number += 1
        sizes = {slot: size for slot, size in sizes.items() if slot not in self.over}
        self.batches[self.number] = []
        for slot, size in sizes.items():
            self.batches[self.number].append((slot, self.lengths[slot], size))
            self.lengths[slot] += 1
        self.trimming.added(self.number, sizes)
        for slot in over:
            self.trimming.forgotten(slot)
            self.over.add(slot)

    def tidy(self) -> None:
        trimming = self.trimming
        if last := trimming.crowded:
            assert trimming.low <= last < self.number
            found = [
                record
                for number in range(trimming.low, last + 1)
                for record in self.batches[number]
                if trimming.live(record[0])
            ]
            self.number += 1
            self.batches[self.number] = found
            sizes: defaultdict[int, int] = defaultdict(int)
            for slot, _, size in found:
                sizes[slot] += size
            trimming.moved(last, self.number, sizes)
        for number in [one for one in self.batches if one < trimming.low]:
            del self.batches[number]

    @property
    def bytes(self) -> int:
        return sum(size for batch in self.batches.values() for _, _, size in batch)

    def places(self, slot: int) -> set[int]:
        return {at for batch in self.batches.values() for one, at, _ in batch if one == slot}


@given(BATCHES, st.integers(1, 300), st.integers(1, 100))
def test_what_is_open_stays_whole(
    batches: list[tuple[dict[int, int], set[int]]], keep: int, copy: int
) -> None:
    journal = Journal(keep, copy)
    for sizes, over in batches:
        journal.add(sizes, over)
        journal.tidy()
        for slot, length in journal.lengths.items():
            if slot not in journal.over:
                assert journal.places(slot) == set(range(length))


@given(BATCHES)
def test_what_is_over_goes(batches: list[tuple[dict[int, int], set[int]]]) -> None:
    journal = Journal(1 << 20, 1 << 20)
    for sizes, over in batches:
        journal.add(sizes, over)
    journal.add({}, {*range(1, 7)})
    journal.add({}, set())
    journal.tidy()
    assert [*journal.batches] == [journal.number]  # the last one stays


def test_one_that_stays_open_keeps_no_more_than_its_bound() -> None:
    journal = Journal(1000, 200)
    journal.add({1: 50}, set())
    for number in range(2, 500):
        journal.add({number: 40}, set())
        journal.add({}, {number})
        journal.tidy()
    assert journal.places(1) == {0}
    assert journal.bytes < 1500
    assert journal.number < 1500  # it is not written again all the time


def test_much_that_is_live_is_not_written_again_without_end() -> None:
    journal = Journal(100, 100)
    for number in range(1, 101):
        journal.add({number: 50}, set())
        journal.tidy()
    assert journal.number == 100
    assert journal.bytes == 5000
