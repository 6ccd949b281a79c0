"""Exact nearest neighbours on the CPU against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_kernels import cosine_topk, inverse_norms, reference
from tests.support.kernels.cases import HUGE, assert_close, assert_topk, normal, odd_rows


def codes(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def check(q: np.ndarray, v: np.ndarray, k: int) -> None:
    values, rows = cosine_topk(q, v, k, backend="cpu")
    assert values.dtype == np.float32
    assert rows.dtype == np.int64
    assert_topk(values, rows, reference.search.cosine_scores(q, v), k, atol=2e-6)


@pytest.mark.parametrize("kind", ["int8", "float32"])
@pytest.mark.parametrize(
    ("count", "dim", "queries", "k"),
    [(1, 1, 1, 1), (7, 3, 2, 9), (1000, 33, 5, 10), (9001, 64, 33, 17), (5000, 768, 1, 1024)],
)
def test_sizes(kind: str, count: int, dim: int, queries: int, k: int) -> None:
    make = codes if kind == "int8" else normal
    check(make((queries, dim), 1), make((count, dim), 2), k)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 4), st.integers(1, 12))
def test_small_codes_tie_often(count: int, dim: int, queries: int, k: int) -> None:
    rng = np.random.default_rng(count * 1000 + dim)
    v = rng.integers(-1, 2, (count, dim)).astype(np.int8)
    q = rng.integers(-1, 2, (queries, dim)).astype(np.int8)
    check(q, v, k)


def test_equal_scores_come_in_the_order_of_rows() -> None:
    v = np.ones((5000, 8), np.int8)
    values, rows = cosine_topk(v[:2], v, 6, backend="cpu")
    np.testing.assert_array_equal(rows, [list(range(6))] * 2)
    assert_close(values, np.ones((2, 6)))


def test_a_vector_finds_itself_first() -> None:
    v = codes((3000, 96), 5)
    values, rows = cosine_topk(v[100:140], v, 1, backend="cpu")
    np.testing.assert_array_equal(rows[:, 0], np.arange(100, 140))
    assert_close(values, np.ones((40, 1)))


@pytest.mark.parametrize("dim", [1, 5, 64])
def test_odd_rows(dim: int) -> None:
    x = odd_rows(dim)
    q = np.concatenate([x, normal((2, dim), 3)])
    check(q, x, 12)
    assert_close(inverse_norms(x)[[0, 1, 2]], [0, np.nan, np.nan])


def test_nothing_to_search() -> None:
    values, rows = cosine_topk(codes((2, 4), 1), np.empty((0, 4), np.int8), 3, backend="cpu")
    assert (values == -np.inf).all()
    assert (rows == -1).all()
    assert cosine_topk(np.empty((0, 4), np.int8), codes((2, 4), 1), 3)[0].shape == (0, 3)


def test_a_vector_can_be_taken_out() -> None:
    v = codes((100, 16), 9)
    known = inverse_norms(v)
    known[17] = np.nan
    _, rows = cosine_topk(v[17:18], v, 100, inverse_norms=known, backend="cpu")
    assert 17 not in rows
    assert rows[0, -1] == -1


def test_the_longest_codes_do_not_overflow() -> None:
    v = np.full((2, 131_071), -128, np.int8)
    values, _ = cosine_topk(v[:1], v, 2, backend="cpu")
    assert_close(values, [[1, 1]])
    with pytest.raises(ValueError, match="131071"):
        cosine_topk(np.zeros((1, 131_072), np.int8), np.zeros((1, 131_072), np.int8), 1)


def test_the_largest_floats_do_not_overflow() -> None:
    v = np.array([[HUGE, -HUGE], [HUGE, HUGE], [1e-30, 1e-30]], np.float32)
    values, rows = cosine_topk(v[1:2], v, 3, backend="cpu")
    np.testing.assert_array_equal(rows[0], [1, 2, 0])
    assert_close(values, [[1, 1, 0]])


def test_what_is_refused() -> None:
    v = codes((5, 4), 1)
    with pytest.raises(ValueError, match="k must be from 1 to 1024"):
        cosine_topk(v, v, 1025)
    with pytest.raises(ValueError, match="must be"):
        cosine_topk(v, v[:, :3], 1)
    with pytest.raises(ValueError, match="one number a vector"):
        cosine_topk(v, v, 1, inverse_norms=np.ones(4, np.float32))
    with pytest.raises(TypeError, match="queries is float32"):
        cosine_topk(v.astype(np.float32), v, 1)
