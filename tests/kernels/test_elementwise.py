"""Addition and activations on the CPU against float64."""

from __future__ import annotations

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference
from tests.support.kernels.cases import LENGTHS, assert_close, normal, odd_rows

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
