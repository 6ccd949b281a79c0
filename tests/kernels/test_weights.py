"""int4 weights on the CPU against what they were packed from."""

from __future__ import annotations

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference
from tests.support.kernels.cases import assert_close, normal
from tests.support.kernels.weights import make


@pytest.mark.parametrize("layout", ["awq", "gptq"])
@pytest.mark.parametrize("size", [(8, 8, 1), (64, 24, 4), (256, 136, 2), (0, 8, 0), (128, 0, 1)])
def test_int4(layout: str, size: tuple[int, int, int]) -> None:
    inner, columns, groups = size
    qweight, qzeros, scales, meant = make(inner, columns, groups, layout, seed=5)
    truth = reference.weights.dequantize_int4(qweight, qzeros, scales, layout)
    assert_close(truth, meant, atol=0)
    got = k.dequantize_int4(qweight, qzeros, scales, layout=layout, backend="cpu")  # type: ignore[arg-type]
    assert_close(got, meant, rtol=1e-6, atol=0)
    x = normal((inner,), 6)
    y = k.int4_times_vector(x, qweight, qzeros, scales, layout=layout, backend="cpu")  # type: ignore[arg-type]
    assert_close(y, x @ meant, rtol=1e-4, atol=1e-3)


def test_what_is_refused() -> None:
    qweight, qzeros, scales, _ = make(16, 16, 2, "awq", 1)
    with pytest.raises(ValueError, match="belong together"):
        k.dequantize_int4(qweight, qzeros, scales, layout="gptq")
    with pytest.raises(ValueError, match="layout must be"):
        k.dequantize_int4(qweight, qzeros, scales, layout="gguf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x is"):
        k.int4_times_vector(np.ones(15, np.float32), qweight, qzeros, scales)
    with pytest.raises(ValueError, match="divide"):
        k.dequantize_int4(qweight, np.repeat(qzeros, 3, 0)[:3], np.ones((3, 16), np.float16))
