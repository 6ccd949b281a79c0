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
    truth = reference.weights.int4.dequantize_int4(qweight, qzeros, scales, layout)
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


@pytest.mark.parametrize("size", [(8, 8, 1), (64, 24, 4), (256, 136, 5), (0, 8, 0), (128, 0, 3)])
def test_rows_that_name_their_group(size: tuple[int, int, int]) -> None:
    inner, columns, groups = size
    of = np.random.default_rng(3).integers(0, max(1, groups), inner).astype(np.int32)
    qweight, qzeros, scales, meant = make(inner, columns, groups, "gptq", seed=5, of=of)
    truth = reference.weights.int4.dequantize_int4(qweight, qzeros, scales, "gptq", of)
    assert_close(truth, meant, atol=0)
    got = k.dequantize_int4(qweight, qzeros, scales, layout="gptq", g_idx=of, backend="cpu")
    assert_close(got, meant, rtol=1e-6, atol=0)
    x = normal((inner,), 6)
    y = k.int4_times_vector(x, qweight, qzeros, scales, layout="gptq", g_idx=of, backend="cpu")
    assert_close(y, x @ meant, rtol=1e-4, atol=1e-3)


def test_groups_that_are_not_there_are_refused() -> None:
    qweight, qzeros, scales, _ = make(16, 16, 2, "gptq", 1)
    for of, said in (
        (np.full(16, 2, np.int32), "2 to 2, and there are 2 groups"),
        (np.full(16, -1, np.int32), "-1 to -1"),
        (np.zeros(8, np.int32), r"\(16,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            k.dequantize_int4(qweight, qzeros, scales, layout="gptq", g_idx=of, backend="cpu")
    awq = make(16, 16, 2, "awq", 1)[:3]
    with pytest.raises(ValueError, match="goes with layout 'gptq'"):
        k.dequantize_int4(*awq, g_idx=np.zeros(16, np.int32))
