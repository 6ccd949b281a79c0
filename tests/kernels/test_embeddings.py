"""int8 codes and L2 norms on the CPU against float64."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_kernels import (
    dequantize_int8,
    l2_normalize,
    normalize_quantize,
    quantize_int8,
    reference,
)
from tests.support.kernels.cases import LENGTHS, assert_close, assert_codes, normal, odd_rows


@pytest.mark.parametrize("length", LENGTHS)
def test_all_lengths(length: int) -> None:
    x = normal((6, length), seed=length)
    exact, scale = reference.quantize.exact_codes(x)
    codes, scales = quantize_int8(x, backend="cpu")
    assert_codes(codes, exact)
    assert_close(scales, scale, atol=0)
    unit_codes, unit_scales = normalize_quantize(x, backend="cpu")
    np.testing.assert_array_equal(unit_codes, codes)
    assert_close(unit_scales, reference.quantize.normalize_quantize(x)[1], atol=0)
    assert_close(l2_normalize(x, backend="cpu"), reference.norms.l2_normalize(x))
    back = dequantize_int8(codes, scales, backend="cpu")
    assert_close(back, reference.quantize.dequantize_int8(codes, scales), atol=0)
    assert (np.abs(back - x) <= scales[:, None] * 0.5001).all()


@pytest.mark.parametrize("length", [1, 4, 40, 1000])
def test_odd_rows(length: int) -> None:
    x = odd_rows(length)
    exact, scale = reference.quantize.exact_codes(x)
    codes, scales = quantize_int8(x, backend="cpu")
    assert_codes(codes, exact, slack=2e-2)  # among the smallest numbers a float has few digits
    assert_close(scales, scale, atol=1e-44)
    codes, scales = normalize_quantize(x, backend="cpu")
    assert_codes(codes, exact, slack=2e-2)
    assert_close(scales, reference.quantize.normalize_quantize(x)[1])
    assert_close(l2_normalize(x, backend="cpu"), reference.norms.l2_normalize(x))


def test_shapes() -> None:
    x = normal((2, 3, 5), seed=1)
    codes, scales = quantize_int8(x)
    assert (codes.shape, scales.shape) == ((2, 3, 5), (2, 3))
    np.testing.assert_array_equal(quantize_int8(x[1, 2])[0], codes[1, 2])
    assert l2_normalize(x).shape == (2, 3, 5)
    assert dequantize_int8(codes, scales).shape == (2, 3, 5)
    assert quantize_int8(np.empty((0, 4), np.float32))[0].shape == (0, 4)
    for strange in (x[:, ::2], x.transpose(2, 0, 1), x[::-1]):
        assert_codes(quantize_int8(strange)[0], reference.quantize.exact_codes(strange)[0])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="single number"):
        quantize_int8(np.float32(1))
    with pytest.raises(TypeError, match="x is complex128"):
        l2_normalize(np.ones(3, complex))
    with pytest.raises(ValueError, match="scales must"):
        dequantize_int8(np.zeros((2, 3), np.int8), np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="codes is float64"):
        dequantize_int8(np.zeros((2, 3)), np.zeros(2, np.float32))
