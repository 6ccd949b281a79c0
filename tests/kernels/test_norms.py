"""softmax and RMS norm on the CPU against float64."""

from __future__ import annotations

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference
from tests.support.kernels.cases import LENGTHS, assert_close, normal, odd_rows


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
