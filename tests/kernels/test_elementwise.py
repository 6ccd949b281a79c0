"""Addition, activations, norms and load on the CPU against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference
from tests.kernels.cases import LENGTHS, assert_close, normal, odd_rows

UNARY = {
    "relu": (k.relu, reference.elementwise.relu),
    "gelu tanh": (k.gelu, reference.elementwise.gelu),
    "gelu erf": (
        lambda x, **more: k.gelu(x, "erf", **more),
        lambda x: reference.elementwise.gelu(x, "erf"),
    ),
    "silu": (k.silu, reference.elementwise.silu),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    run, truth = UNARY[name]
    for length in LENGTHS:
        x = normal((length,), seed=length) * 3
        assert_close(run(x, backend="cpu"), truth(x), rtol=2e-6, atol=2e-6)
    x = odd_rows(37)
    assert_close(run(x, backend="cpu"), truth(x))
    out = np.full_like(x, np.nan)
    assert run(x, out=out, backend="cpu") is out
    assert_close(out, truth(x))
    with pytest.raises(ValueError, match="out must be"):
        run(x, out=out.astype(np.float64), backend="cpu")
    with pytest.raises(ValueError, match="contiguous"):
        run(x[:, :4], out=out[:, :4], backend="cpu")


def test_gelu_keeps_the_digits_of_its_tail() -> None:
    x = np.linspace(-12, -4, 50, dtype=np.float32)
    assert_close(k.gelu(x, "erf"), reference.elementwise.gelu(x, "erf"), rtol=1e-4, atol=1e-37)


def test_vector_add() -> None:
    for length in LENGTHS:
        a, b = normal((length,), 1), normal((length,), 2)
        assert_close(k.vector_add(a, b, backend="cpu"), a + b, atol=0)
    a, b = odd_rows(33), odd_rows(33)[::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        assert_close(k.vector_add(a, b), reference.elementwise.vector_add(a, b))
    with pytest.raises(ValueError, match="one shape"):
        k.vector_add(np.ones(3, np.float32), np.ones(4, np.float32))


@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_and_rms_norm(length: int) -> None:
    x = normal((5, length), seed=length) * 4
    w = normal((length,), seed=1)
    assert_close(k.softmax(x, backend="cpu"), reference.norms.softmax(x), rtol=1e-5, atol=1e-9)
    assert_close(k.rms_norm(x, backend="cpu"), reference.norms.rms_norm(x))
    assert_close(k.rms_norm(x, w, eps=1e-3), reference.norms.rms_norm(x, w, 1e-3), rtol=2e-5)


@pytest.mark.parametrize("length", [1, 6, 500])
def test_softmax_and_rms_norm_of_odd_rows(length: int) -> None:
    x = odd_rows(length)
    assert_close(k.softmax(x, backend="cpu"), reference.norms.softmax(x))
    assert_close(k.rms_norm(x, backend="cpu"), reference.norms.rms_norm(x))
    with pytest.raises(ValueError, match="weight is"):
        k.rms_norm(x, np.ones(length + 1, np.float32))


def test_spin_does_its_rounds() -> None:
    seeds = np.arange(1000, dtype=np.uint32)
    for rounds in (0, 1, 7, 100):
        got = k.spin(seeds, rounds, backend="cpu")
        np.testing.assert_array_equal(got, reference.synthetic_load.spin(seeds, rounds))
    assert got[0] == 0
    assert len(set(got.tolist())) == 1000
    with pytest.raises(ValueError, match="rounds"):
        k.spin(seeds, -1)


def test_post_does_its_rounds() -> None:
    x = normal((100,), 1)
    for rounds in (0, 1, 50, 3000):
        assert_close(
            k.post(x, rounds, backend="cpu"), reference.synthetic_load.post(x, rounds), rtol=1e-4
        )
    # a round brings every chain nearer to 1, so the number of rounds shows in the sum
    sums = [float(k.post(np.full(1, 10.0, np.float32), n)[0]) for n in range(5)]
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) == 5
    assert math.isnan(k.post(np.full(1, np.nan, np.float32), 3)[0])
