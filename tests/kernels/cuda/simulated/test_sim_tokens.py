"""Token statistics, in one pass and in shares."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_kernels import reference
from llcuda_kernels.cuda import tokens
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


def test_rows_in_shares() -> None:
    x = normal((2, 20_000), 5)
    x[0] += np.arange(20_000, dtype=np.float32) * 0.01  # each step brings greater ones
    x[1, 19_999] = 90
    check(x, np.array([19_999, 19_999]), 12)


def test_very_many_of_them() -> None:
    check(normal((1, 5000), 6), None, 1024)


def test_odd_rows() -> None:
    check(odd_rows(4100), np.zeros(12, np.int64), 2)
    check(odd_rows(3), None, 5)


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
