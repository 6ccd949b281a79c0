"""Drawing tokens on the CPU: by the reference, by Philox's own vectors, and by chi-squared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llcuda_kernels as k
from llcuda_kernels import reference
from llcuda_kernels.reference import sampling as truth
from tests.support.kernels.cases import normal


def by_reference(values: Any, top_k: int, seed: int, **parameters: Any) -> Any:
    best, indices = reference.search.best(np.asarray(values, np.float64), top_k)
    places = truth.sample(best, seed=seed, **parameters)
    tokens = np.take_along_axis(indices, np.maximum(places, 0)[:, None], 1)[:, 0]
    return np.where(places >= 0, tokens, -1)


def test_the_generator_gives_the_words_of_its_paper() -> None:
    # kat_vectors of Random123, the authors' own implementation: philox4x32-10
    assert truth.philox(0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


def test_weights_are_powers_of_two() -> None:
    v = np.array([0, -0.25, -1, -1.5, -7.3, -29.9, -40, -np.inf], np.float32)
    got = truth.weights(v, 1.0)
    np.testing.assert_allclose(got, 2.0 ** (31 + v.astype(np.float64)), rtol=0, atol=4)
    assert got[0] == 2**31
    assert got[-1] == 0


@given(
    rows=st.lists(
        st.lists(st.floats(-60, 60, width=32), min_size=5, max_size=5), min_size=1, max_size=8
    ),
    temperature=st.sampled_from([0.0, 0.01, 0.8, 1.0, 5.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    top_k=st.integers(1, 5),
    seed=st.integers(0, 2**64 - 1),
    first_row=st.integers(0, 2**40),
)
def test_any_parameters_give_what_the_reference_gives(
    rows: list[list[float]], top_k: int, seed: int, first_row: int, **parameters: Any
) -> None:
    values = np.array(rows, np.float32)
    got = k.sample(values, top_k=top_k, seed=seed, first_row=first_row, backend="cpu", **parameters)
    want = by_reference(values, top_k, seed, first_row=first_row, **parameters)
    np.testing.assert_array_equal(got.tokens, want)
    lse = got.statistics.log_sum_exp
    taken = np.take_along_axis(values, got.tokens[:, None], 1)[:, 0]
    np.testing.assert_allclose(got.statistics.surprisal, lse - taken, rtol=1e-5, atol=1e-5)


def test_what_is_drawn_is_as_frequent_as_it_is_probable() -> None:
    p = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    rows = 20_000
    values = np.repeat(np.log(p).astype(np.float32)[None], rows, 0)
    for temperature in (0.7, 1.0, 1.6):
        tokens = k.sample(
            values, seed=7, temperature=temperature, top_k=5, top_p=1, min_p=0, backend="cpu"
        ).tokens
        want = p ** (1 / temperature)
        want *= rows / want.sum()
        chi_squared = (((np.bincount(tokens, minlength=5) - want) ** 2) / want).sum()
        assert chi_squared < 18.5  # one in a thousand, of 4 degrees of freedom


def test_top_p_and_min_p_keep_whom_llama_cpp_keeps() -> None:
    p = np.array([0.5, 0.3, 0.15, 0.05])
    values = np.repeat(np.log(p).astype(np.float32)[None], 2000, 0)

    def drawn(**parameters: Any) -> set[int]:
        whole = {"top_k": 4, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0, **parameters}
        return set(k.sample(values, seed=1, backend="cpu", **whole).tokens.tolist())

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {0, 1}
    assert drawn(top_p=0.79) == {0, 1}
    assert drawn(top_p=0.81) == {0, 1, 2}
    assert drawn(top_p=0.0) == {0}
    assert drawn(min_p=0.2) == {0, 1, 2}
    assert drawn(min_p=1.0) == {0}
    assert drawn(top_k=3, top_p=0.84) == {0, 1}  # 0.8 of 0.95 is 0.842


def test_parts_give_what_the_whole_gives() -> None:
    values = normal((40, 100), 3)
    whole = k.sample(values, seed=5, backend="cpu").tokens
    parts = [
        k.sample(values[at : at + 10], seed=5, first_row=at, backend="cpu").tokens
        for at in range(0, 40, 10)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (k.sample(values, seed=6, backend="cpu").tokens != whole).any()


def test_rows_without_a_distribution() -> None:
    values = normal((5, 50), 2)
    values[0, 3], values[1, 0], values[2] = np.nan, np.inf, -np.inf
    values[3, 1:] = -np.inf
    tokens = k.sample(values, seed=1, backend="cpu").tokens
    assert tokens[:4].tolist() == [-1, -1, -1, 0]
    assert k.sample(values[:0], seed=1).tokens.shape == (0,)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"top_k": 0}, "top_k must be from 1 to 1024, not 0"),
        ({"top_p": 1.5}, "top_p must be from 0 to 1, not 1.5"),
        ({"min_p": float("nan")}, "min_p must be from 0 to 1"),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"seed": 1 << 64}, "64 bits"),
        ({"first_row": -1}, "first_row must be 0 or more"),
    ],
)
def test_what_is_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        k.sample(np.zeros((1, 4), np.float32), **{"seed": 0, **parameters})
