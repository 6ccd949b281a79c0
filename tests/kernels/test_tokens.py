"""Token statistics on the CPU against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llcuda_kernels import certainty, list_statistics, reference, token_statistics
from tests.support.kernels.cases import HUGE, LENGTHS, assert_close, assert_topk, normal, odd_rows


def check(x: np.ndarray, chosen: np.ndarray | None, k: int) -> None:
    got = token_statistics(x, chosen, k=k, backend="cpu")
    want = reference.tokens.token_statistics(x, chosen, k)
    assert_close(got.log_sum_exp, want.log_sum_exp, rtol=2e-6, atol=2e-6)
    assert_close(got.entropy, want.entropy, rtol=1e-5, atol=1e-5)
    assert_close(got.perplexity, want.perplexity, rtol=1e-4)
    assert_close(got.surprisal, want.surprisal, rtol=1e-5, atol=1e-5)
    assert got.top_indices.dtype == np.int32
    np.testing.assert_array_equal(got.top_values, want.top_values.astype(np.float32))
    np.testing.assert_array_equal(got.top_indices, want.top_indices)


@pytest.mark.parametrize("length", LENGTHS)
def test_all_lengths(length: int) -> None:
    x = normal((5, length), seed=length)
    chosen = np.array([-1, 0, length - 1, length // 2, 0]) if length else np.full(5, -1)
    check(x, chosen, k=min(7, length + 1))


@pytest.mark.parametrize("k", [0, 1, 10, 1024])
def test_a_vocabulary_with_a_peak(k: int) -> None:
    x = normal((4, 33_001), seed=1) * 3
    x[1, 20_000] = 80  # found late: all that was summed before shrinks to nothing
    x[2] -= np.arange(33_001, dtype=np.float32) * 0.01
    x[3] += np.arange(33_001, dtype=np.float32) * 0.01
    check(x, np.array([5, 20_000, 0, 33_000]), k)


@pytest.mark.parametrize("length", [1, 40, 5000])
def test_odd_rows(length: int) -> None:
    x = odd_rows(length)
    check(x, np.zeros(len(x), np.int64), k=9)


def test_forbidden_tokens_count_nothing() -> None:
    x = np.full((1, 3000), -np.inf, np.float32)
    x[0, 2999], x[0, 7] = 1.0, 1.0
    got = token_statistics(x, np.array([7]), k=4, backend="cpu")
    assert got.entropy[0] == pytest.approx(math.log(2), abs=1e-6)
    assert got.perplexity[0] == pytest.approx(2, abs=1e-5)
    assert got.surprisal[0] == pytest.approx(math.log(2), abs=1e-6)
    assert got.top_indices[0].tolist() == [7, 2999, 0, 1]
    check(x, np.array([0]), k=4)


def test_a_uniform_and_a_certain_token() -> None:
    x = np.zeros((2, 1000), np.float32)
    x[1, 3] = HUGE
    got = token_statistics(x, np.array([1, 3]), backend="cpu")
    assert got.entropy[0] == pytest.approx(math.log(1000), rel=1e-6)
    assert (got.entropy[1], got.surprisal[1], got.perplexity[1]) == (0, 0, 1)


def test_equal_values_come_in_their_order() -> None:
    x = np.zeros((1, 9000), np.float32)
    got = token_statistics(x, k=5, backend="cpu")
    assert got.top_indices[0].tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(got.surprisal[0])


def test_no_rows() -> None:
    got = token_statistics(np.empty((0, 10), np.float32), np.empty(0, np.int64), k=3)
    assert got.entropy.shape == (0,)
    assert got.top_values.shape == (0, 3)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.floats(-100, 100, width=32) | st.just(-math.inf),
    )
)
def test_whatever_comes(x: np.ndarray) -> None:
    check(x, np.zeros(len(x), np.int64), k=3)


def test_what_is_refused() -> None:
    x = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match="k must be"):
        token_statistics(x, k=1025)
    with pytest.raises(ValueError, match="2 dimensions"):
        token_statistics(x[0])
    with pytest.raises(ValueError, match="3 entries for 2 rows"):
        token_statistics(x, np.zeros(3, np.int64))
    with pytest.raises(TypeError, match="chosen is float64"):
        token_statistics(x, np.array([0.5, 1]))
    with pytest.raises(ValueError, match="backend must be"):
        token_statistics(x, backend="gpu")  # type: ignore[arg-type]


def test_lists_against_a_whole_distribution() -> None:
    x = normal((50, 200), seed=3, outliers=False)
    p = np.exp(x - np.log(np.exp(x.astype(np.float64)).sum(axis=1, keepdims=True)))
    logp = np.log(p).astype(np.float32)
    whole = token_statistics(logp, np.zeros(50, np.int64), backend="cpu")
    full = list_statistics(logp, logp[:, 0], backend="cpu")
    assert_close(full.entropy, whole.entropy, atol=1e-4)
    assert_close(full.surprisal, whole.surprisal, atol=1e-4)
    short = list_statistics(-np.sort(-logp, axis=1)[:, :5], logp[:, 0], backend="cpu")
    assert (short.entropy < whole.entropy).all()
    rest = 1 - np.sort(p, axis=1)[:, -5:].sum(axis=1)
    assert (short.entropy > -rest * np.log(rest)).all()


def test_lists_that_are_short_or_broken() -> None:
    with np.errstate(divide="ignore"):
        x = np.log([[0.5, 0.5, 0.0], [0.5, 0.0, 0.0], [0.0] * 3, [1.0, np.nan, 0.0]])
    got = list_statistics(x.astype(np.float32), np.log([0.5, 0.1, 0.1, 1.0]).astype(np.float32))
    assert_close(got.entropy, [math.log(2), math.log(2), np.nan, np.nan])
    assert_close(got.perplexity, [2, 2, np.nan, np.nan])
    assert_close(got.surprisal, [math.log(2), math.log(10), math.log(10), 0])
    with pytest.raises(ValueError, match="chosen_logprob"):
        list_statistics(np.zeros((2, 3)), np.zeros(3))


def test_certainty_of_an_answer() -> None:
    s = np.array([0.1, np.nan, 2.0, 3.0, 2.5, 0.2, 0.1])
    found = certainty(s, np.array([1.0, np.nan, 2.0]), span=3)
    assert found.mean_surprisal == pytest.approx(7.9 / 6)
    assert found.perplexity == pytest.approx(math.exp(7.9 / 6))
    assert found.mean_entropy == pytest.approx(1.5)
    assert found.least_certain == (2, 5)
    assert found.least_certain_surprisal == pytest.approx(2.5)
    assert certainty(np.ones(9), span=4).least_certain == (0, 4)
    assert certainty(np.ones(2), span=4).least_certain == (0, 2)
    none = certainty(np.empty(0))
    assert none.least_certain == (0, 0)
    assert math.isnan(none.perplexity)
    with pytest.raises(ValueError, match="span"):
        certainty(s, span=0)


def test_the_comparison_itself_finds_mistakes() -> None:
    scores = np.array([[3.0, 1.0, 2.0]])
    assert_topk(np.array([[3.0, 2.0]]), np.array([[0, 2]]), scores, 2)
    for values, indices in [
        ([3.0, 2.0], [0, 1]),
        ([3.0, 1.0], [0, 1]),
        ([2.0, 3.0], [2, 0]),
        ([3.0, np.nan], [0, 2]),
    ]:
        with pytest.raises(AssertionError):
            assert_topk(np.array([values]), np.array([indices]), scores, 2)
    with pytest.raises(AssertionError):
        assert_close([np.nan], [1.0])
    with pytest.raises(AssertionError):
        assert_close([np.inf], [1.0])
