"""Token statistics, in one pass and in shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import llcuda_kernels
from llcuda_kernels import reference
from llcuda_kernels.cuda import sampling, tokens
from llcuda_kernels.cuda.primitives.token_topk import STEP
from tests.support.kernels.cases import assert_close, normal, odd_rows


def check(x: np.ndarray, chosen: np.ndarray | None, k: int) -> None:
    lse, entropy, perplexity, surprisal, values, indices = tokens.token_statistics(x, chosen, k)
    want = reference.tokens.token_statistics(x, chosen, k)
    assert_close(lse, want.log_sum_exp, rtol=2e-6, atol=2e-6)
    assert_close(entropy, want.entropy, rtol=2e-5, atol=2e-5)
    assert_close(perplexity, want.perplexity, rtol=1e-4)
    assert_close(surprisal, want.surprisal, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(values, want.top_values.astype(np.float32))
    np.testing.assert_array_equal(indices, want.top_indices)


@pytest.mark.parametrize("length", [0, 1, 4100])
@pytest.mark.parametrize("k", [0, 3])
def test_lengths(length: int, k: int) -> None:
    chosen = np.array([-1, length - 1, 0]) if length else np.full(3, -1)
    check(normal((3, length), length) * 3, chosen, k)


#: A row is shared from twice two steps on; the larger one divides nothing.
@pytest.mark.parametrize("length", [4 * STEP, pytest.param(20_000, marks=pytest.mark.slow)])
def test_rows_in_shares(length: int) -> None:
    x = normal((2, length), 5)
    x[0] += np.arange(length, dtype=np.float32) * 0.01  # each step brings greater ones
    x[1, -1] = 90
    check(x, np.full(2, length - 1), 12)


def test_cells_of_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CELLS", 2)
    monkeypatch.setattr(tokens, "_shares", lambda rows, n: (1, n))
    x = normal((1, 5 * STEP + 4), 8)
    x[0, [0, 2 * STEP, 4 * STEP - 1, 5 * STEP + 3]] = [50, 60, 70, 80]
    check(x, None, 6)


def test_rows_without_vectors_in_whole_steps() -> None:
    x = normal((2, STEP + 7), 9)
    x[:, [0, 255, STEP - 1, STEP + 6]] = [50, 60, 70, 80]
    check(x, np.array([STEP + 6, 0]), 6)


#: From 129 on they are found in the pass; 1,024 fill the buffer, which is cut.
@pytest.mark.parametrize(
    ("length", "k"), [(300, 129), pytest.param(5000, 1024, marks=pytest.mark.slow)]
)
def test_very_many_of_them(length: int, k: int) -> None:
    check(normal((1, length), 6), None, k)


def test_a_full_buffer_is_cut() -> None:
    check(np.arange(4100, dtype=np.float32)[None], None, 129)


def test_odd_rows() -> None:
    check(odd_rows(3), None, 5)
    # in whole steps: NaN at the end, infinity before and in the middle
    check(odd_rows(4100)[7:10], np.zeros(3, np.int64), 2)


@pytest.mark.slow
def test_odd_rows_in_whole_steps() -> None:
    check(odd_rows(4100), np.zeros(12, np.int64), 2)


def test_equal_values_come_in_their_order() -> None:
    check(np.zeros((1, 9000), np.float32), None, 4)


def test_a_token_beyond_the_vocabulary_has_no_surprisal() -> None:
    assert np.isnan(tokens.token_statistics(np.zeros((1, 4), np.float32), np.array([4]), 0)[3][0])
    with pytest.raises(ValueError, match="entries"):
        tokens.token_statistics(np.zeros((1, 4), np.float32), np.array([4, 3]), 0)


def test_lists() -> None:
    x = np.log(np.random.default_rng(1).dirichlet(np.ones(50), 9)).astype(np.float32)[:, :20]
    x[3] = -np.inf
    x[4, 7:] = -np.inf
    x[5, 2] = np.nan
    x[6, 0] = np.inf
    chosen = normal((9,), 2)
    want = reference.tokens.list_statistics(x, chosen)
    for got, truth in zip(tokens.list_statistics(x, chosen), want, strict=True):
        assert_close(got, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p", "temperature"),
    [(1, 1.0, 0.0, 0.7), (40, 0.9, 0.05, 0.0), (40, 0.9, 0.01, 3.0), (70, 1.0, 0.0, 9.0)],
)
def test_tokens_are_drawn_as_on_the_cpu(
    top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    values = normal((9, 260), 5)
    values[0, 7], values[1] = np.nan, -np.inf
    parameters: dict[str, Any] = {
        "top_k": top_k, "top_p": top_p, "min_p": min_p, "temperature": temperature,
        "seed": (1 << 63) + 12345, "first_row": (1 << 33) + 5,
    }  # fmt: skip
    want = llcuda_kernels.sample(values, backend="cpu", **parameters)
    by = float(np.float32(np.log2(np.e) / temperature)) if temperature else 0.0
    tokens, *statistics = sampling.sample(
        values, top_k, by, round(top_p * 2**20), round(min_p * 2**20), 12345 - (1 << 63),
        (1 << 33) + 5,
    )  # fmt: skip
    np.testing.assert_array_equal(tokens, want.tokens)
    np.testing.assert_allclose(statistics[3], want.statistics.surprisal, rtol=1e-5, atol=1e-5)


#: k up to 24 is found by what the lanes saw, and above it by the cells; 600 and 4,700 are of whole
#: vectors, with a cell a step, and two.
@pytest.mark.parametrize(
    ("length", "k"),
    [
        *[(0, 2), (1, 0), (40, 3), (600, 20), (1033, 5), (1033, 30)],
        *(pytest.param(4700, k, marks=pytest.mark.slow) for k in (0, 20, 60)),
    ],
)
def test_rows_of_a_warp_each(length: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_by_warps", lambda rows, n, k: True)
    chosen = np.array([-1, length - 1, 0]) if length else np.full(3, -1)
    check(normal((3, length), length) * 3, chosen, k)


@pytest.mark.parametrize("k", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_odd_rows_of_a_warp_each(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_by_warps", lambda rows, n, k: True)
    check(odd_rows(37), None, k)
    # more that are equal than a list holds
    check(np.concatenate([np.zeros((1, 600)), odd_rows(600)[7:10]]).astype(np.float32), None, k)


def test_many_short_rows_are_of_a_warp_each_where_their_cells_can_tell() -> None:
    assert tokens._by_warps(16, 4000, 20)
    assert tokens._by_warps(16, 4096, 128)
    assert not tokens._by_warps(16, 4100, 25)
    assert not tokens._by_warps(15, 4000, 20)
    assert not tokens._by_warps(16, tokens.SHORT + 1, 20)
    assert not tokens._by_warps(16, 600, 25)
    assert not tokens._by_warps(16, 8192, 129)
