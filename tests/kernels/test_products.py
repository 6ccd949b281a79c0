"""Products on the CPU against float64."""

from __future__ import annotations

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference
from tests.support.kernels.cases import assert_close, normal

SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (5, 7, 3), (33, 65, 17), (128, 130, 70)]


@pytest.mark.parametrize("shape", SHAPES)
def test_float32(shape: tuple[int, int, int]) -> None:
    m, n, inner = shape
    a, b = normal((m, inner), 1), normal((inner, n), 2)
    want = reference.products.matmul(a, b)
    assert_close(k.matmul(a, b, backend="cpu"), want, rtol=1e-4, atol=1e-3)
    assert_close(k.gemm(a, b, backend="cpu"), want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_exact(shape: tuple[int, int, int]) -> None:
    m, n, inner = shape
    rng = np.random.default_rng(3)
    a = rng.integers(-128, 128, (m, inner)).astype(np.int8)
    b = rng.integers(-128, 128, (n, inner)).astype(np.int8)
    got = k.matmul_int8(a, b, backend="cpu")
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, reference.products.matmul_int8(a, b))


def test_int8_of_the_longest_sum() -> None:
    a = np.full((1, 131_071), -128, np.int8)
    assert k.matmul_int8(a, a, backend="cpu")[0, 0] == 131_071 * 2**14
    with pytest.raises(ValueError, match="131071"):
        k.matmul_int8(np.zeros((1, 131_072), np.int8), np.zeros((1, 131_072), np.int8))


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16(shape: tuple[int, int, int]) -> None:
    m, n, inner = shape
    a, b = k.to_bf16(normal((m, inner), 1)), k.to_bf16(normal((n, inner), 2))
    got = k.matmul_bf16(a, b, backend="cpu")
    assert_close(got, reference.products.matmul_bf16(a, b), rtol=1e-4, atol=1e-3)


def test_bf16_rounds_half_to_even() -> None:
    x = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -2.5, np.inf, -np.inf, np.nan, 3.4e38], np.float32)
    back = k.from_bf16(k.to_bf16(x))
    assert_close(back, [1, 1, 1 + 2**-6, -2.5, np.inf, -np.inf, np.nan, np.inf], atol=0)
    rng = np.random.default_rng(1)
    y = rng.standard_normal(10_000).astype(np.float32)
    assert (np.abs(k.from_bf16(k.to_bf16(y)) - y) <= np.abs(y) * 2.0**-8).all()


def test_what_is_refused() -> None:
    a = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="must be"):
        k.matmul(a, a)
    with pytest.raises(ValueError, match="kernel must be"):
        k.matmul(a, a.T, kernel="naive")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a is float32"):
        k.matmul_int8(a, a)
