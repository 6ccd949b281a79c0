"""Rows shared out over ranks: threads stand for them here; tests/mpi has real ones."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_kernels import ShardedStore, VectorStore, normalize_quantize
from llcuda_kernels.several.sharded import merged
from tests.support.kernels.cases import normal


class Together:
    """What the ranks of a test gather with."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.messages = 0
        self._barrier = threading.Barrier(size)
        self._given: list[Any] = [None] * size

    def of(self, rank: int) -> Any:
        together = self

        class Rank:
            def __init__(self) -> None:
                self.rank, self.size = rank, together.size

            def gather(self, own: Any) -> Any:
                together._given[rank] = own.copy()
                together._barrier.wait(60)
                out = np.stack(together._given)
                if rank == 0:
                    together.messages += 1
                together._barrier.wait(60)
                return out

        return Rank()


def on_ranks(size: int, run: Any) -> tuple[list[Any], Together]:
    """What `run` gives on each rank."""
    together = Together(size)
    out: list[Any] = [None] * size

    def one(rank: int) -> None:
        out[rank] = run(together.of(rank))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(found is not None for found in out)
    return out, together


@given(data=st.data())
@settings(max_examples=20)
def test_ranks_find_what_one_store_finds(data: st.DataObject) -> None:
    size, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    rows, queries = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 3))
    vectors, asked = normal((rows, 8), 1), normal((queries, 8), 2)
    if rows > 5:
        vectors[3], vectors[5] = vectors[2], 0  # equals, and one that scores 0
    shares = np.array_split(np.arange(rows), size)

    def run(rank: Any) -> Any:
        store = ShardedStore(8, rank, backend="cpu")
        numbers = store.append(vectors[shares[rank.rank]])
        return numbers, store.search(asked, k)

    found, _ = on_ranks(size, run)
    whole = VectorStore(8, backend="cpu")
    # in the order of the ranks' numbers, so that ties fall alike
    order = np.argsort(np.concatenate([numbers for numbers, _ in found]))
    whole.append(vectors[order])
    scores, places = whole.search(asked, k)
    numbers = np.sort(np.concatenate([numbers for numbers, _ in found]))
    want = np.where(places >= 0, np.append(numbers, -1)[places], -1)
    for _, (got, rows_) in found:
        np.testing.assert_array_equal(got, scores)
        np.testing.assert_array_equal(rows_, want)


def test_a_search_is_one_message() -> None:
    codes, scales = normalize_quantize(normal((30, 16), 1), backend="cpu")

    def run(rank: Any) -> Any:
        store = ShardedStore(16, rank, backend="cpu")
        store.append_codes(codes[rank.rank :: 3], scales[rank.rank :: 3])
        return [store.search(normal((4, 16), 2), 5) for _ in range(2)]

    found, together = on_ranks(3, run)
    assert together.messages == 2
    for scores, rows in found[1]:
        np.testing.assert_array_equal(scores, found[0][0][0])
        np.testing.assert_array_equal(rows, found[0][0][1])


def test_a_row_is_discarded_where_it_is() -> None:
    def run(rank: Any) -> Any:
        store = ShardedStore(4, rank, backend="cpu")
        store.append(np.eye(4, dtype=np.float32)[rank.rank * 2 : rank.rank * 2 + 2])
        if rank.rank == 1:
            store.discard(3)  # its second row: place 1 of 2 ranks
            with pytest.raises(IndexError, match="row 2 is rank 0's, and this is rank 1"):
                store.discard(2)
        return store.search(np.eye(4, dtype=np.float32), 1)[1][:, 0].tolist(), len(store)

    found, _ = on_ranks(2, run)
    for rows, count in found:
        assert rows[:3] == [0, 2, 1]
        assert rows[3] != 3
        assert count == 2


def test_merging_prefers_the_lower_row_and_fills_up() -> None:
    scores = np.array([[[1, 0.5, -np.inf]], [[1, 0.5, 0.25]]], np.float32)
    rows = np.array([[[7, 2, -1]], [[4, 3, 9]]], np.int64)
    got, found = merged(scores, rows, 5)
    assert found.tolist() == [[4, 7, 2, 3, 9]]
    assert merged(scores[:1], rows[:1], 3)[1].tolist() == [[7, 2, -1]]
    assert got[0, :2].tolist() == [1, 1]
