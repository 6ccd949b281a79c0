"""The growing index: exact, appended while searched, rebuilt from its arrays."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from llcuda_kernels import VectorStore, normalize_quantize, reference
from llcuda_kernels.vectors import FIRST_SEGMENT
from tests.support.kernels.cases import assert_topk, normal


def test_it_finds_what_the_reference_finds() -> None:
    store = VectorStore(48, backend="cpu")
    x = normal((FIRST_SEGMENT * 3 + 77, 48), seed=1)
    assert store.append(x[:5]) == range(5)
    assert store.append(x[5:5]) == range(5, 5)
    assert store.append(x[5:]) == range(5, len(x))
    assert len(store) == len(x)
    q = normal((7, 48), seed=2)
    scores, rows = store.search(q, 30)
    codes, query_codes = normalize_quantize(x)[0], normalize_quantize(q)[0]
    assert_topk(scores, rows, reference.search.cosine_scores(query_codes, codes), 30)
    one, where = store.search(q[0], 30)
    np.testing.assert_array_equal(one, scores[:1])
    np.testing.assert_array_equal(where, rows[:1])
    np.testing.assert_array_equal(store.search(query_codes, 30)[1], rows)


def test_equal_rows_in_several_segments_come_in_order() -> None:
    store = VectorStore(4, backend="cpu")
    store.append(np.ones((FIRST_SEGMENT * 2, 4), np.float32))
    _, rows = store.search(np.ones(4, np.float32), 1024)
    np.testing.assert_array_equal(rows[0], np.arange(1024))


def test_an_empty_store_finds_nothing() -> None:
    scores, rows = VectorStore(3, backend="cpu").search(np.ones((2, 3), np.float32), 4)
    assert (scores == -np.inf).all()
    assert (rows == -1).all()


def test_broken_vectors_are_never_found_and_find_nothing() -> None:
    store = VectorStore(3, backend="cpu")
    store.append(np.array([[1, np.nan, 0], [0, 0, 0], [1, 2, 3], [np.inf, 0, 0]], np.float32))
    scores, rows = store.search(np.array([[1, 2, 3], [np.nan, 0, 0]], np.float32), 4)
    assert rows.tolist() == [[2, 1, -1, -1], [-1, -1, -1, -1]]
    assert scores[0, 1] == 0


def test_a_discarded_row_stays_out_also_after_a_save() -> None:
    store = VectorStore(8, backend="cpu")
    x = normal((50, 8), seed=4)
    store.append(x)
    store.discard(20)
    for each in (store, VectorStore.from_arrays(*store.arrays(), backend="cpu")):
        assert 20 not in each.search(x[20], 50)[1]
        assert each.search(x[21], 1)[1][0, 0] == 21
        assert len(each) == 50
    with pytest.raises(IndexError):
        store.discard(50)
    with pytest.raises(IndexError):
        store.discard(-1)


def test_arrays_hold_all_rows() -> None:
    store = VectorStore(6, backend="cpu")
    x = normal((FIRST_SEGMENT + 3, 6), seed=5)
    store.append(x)
    codes, scales = store.arrays()
    want, want_scales = normalize_quantize(x)
    np.testing.assert_array_equal(codes, want)
    np.testing.assert_array_equal(scales, want_scales)
    assert VectorStore(6, backend="cpu").arrays()[0].shape == (0, 6)


def test_searches_while_rows_are_appended() -> None:
    """Every search sees a whole prefix: row i is found by its own vector once it is counted."""
    store = VectorStore(32, backend="cpu")
    x = normal((6000, 32), seed=6, outliers=False)
    store.append(x[:10])
    wrong: list[str] = []

    def append(part: int) -> None:
        for start in range(10 + part * 10, 6000, 40):
            store.append(x[start : start + 10])

    def look() -> None:
        while len(store) < 6000:
            seen = len(store)
            row = seen - 1
            codes, _ = store.arrays()
            scores, rows = store.search(codes[row], 1)
            if rows[0, 0] != row or not scores[0, 0] > 0.999:
                wrong.append(f"row {row}: {rows} {scores}")

    threads = [threading.Thread(target=append, args=(part,)) for part in range(4)]
    threads += [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(store) == 6000
    assert len({tuple(row) for row in store.arrays()[0].tolist()}) == 6000


def test_what_is_refused() -> None:
    store = VectorStore(4, backend="cpu")
    with pytest.raises(ValueError, match="must be"):
        store.append(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="must be"):
        store.search(np.ones(3, np.float32), 1)
    with pytest.raises(ValueError, match="k must be"):
        store.search(np.ones(4, np.float32), 0)
    with pytest.raises(ValueError, match="dim must be"):
        VectorStore(0)
    with pytest.raises(ValueError, match="codes must be"):
        store.append_codes(np.zeros((2, 4), np.int8), np.zeros(3, np.float32))
