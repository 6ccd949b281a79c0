"""Element by element, and by rows."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_kernels import reference
from llcuda_kernels.cuda import elementwise, norms, quantize
from llcuda_kernels.cuda.primitives import rows
from tests.support.kernels.cases import assert_close, assert_codes, normal, odd_rows

#: By rows: one kernel each of the three sizes, lengths that divide nothing, and the ends.
LENGTHS = (
    *(1, 4, 132, 515, 1028),
    *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 31, 36, 128, 1024, 1030)),
)
TRUTH = {
    "relu": reference.elementwise.relu,
    "gelu_tanh": reference.elementwise.gelu,
    "gelu_erf": lambda x: reference.elementwise.gelu(x, "erf"),
    "silu": reference.elementwise.silu,
}


@pytest.mark.parametrize("name", TRUTH)
def test_unary(name: str) -> None:
    for length in (0, 1, 33, elementwise.TILE, elementwise.TILE + 5):
        x = normal((length,), length) * 3
        assert_close(elementwise.unary(name, x), TRUTH[name](x), rtol=1e-5, atol=2e-6)
    x = odd_rows(17)
    assert_close(elementwise.unary(name, x), TRUTH[name](x), rtol=1e-5)


def test_vector_add() -> None:
    for length in (0, 1, 257, elementwise.TILE, elementwise.TILE * 2 - 1):
        a, b = normal((length,), 1), normal((length,), 2)
        assert_close(elementwise.vector_add(a, b), a + b, atol=0)
    a, b = odd_rows(5), odd_rows(5)[::-1]
    with np.errstate(all="ignore"):
        assert_close(elementwise.vector_add(a, b), reference.elementwise.vector_add(a, b))


def check_rows(length: int) -> None:
    x = normal((2, length), length) * 3
    w = normal((length,), 1)
    assert_close(norms.softmax(x), reference.norms.softmax(x), rtol=1e-5)
    assert_close(norms.l2_normalize(x), reference.norms.l2_normalize(x))
    assert_close(norms.rms_norm(x, None, 1e-6), reference.norms.rms_norm(x))
    assert_close(norms.rms_norm(x, w, 1e-3), reference.norms.rms_norm(x, w, 1e-3), rtol=2e-5)
    for unit in (False, True):
        codes, scales = quantize.quantize_int8(x, unit)
        assert_codes(codes, reference.quantize.exact_codes(x)[0])
        truth = reference.quantize.normalize_quantize if unit else reference.quantize.quantize_int8
        assert_close(scales, truth(x)[1])


@pytest.mark.parametrize("length", LENGTHS)
def test_rows(length: int) -> None:
    check_rows(length)


#: Some blocks of a cluster have nothing, or less than the others; some threads several vectors.
@pytest.mark.parametrize("length", [20, 4100])
def test_rows_in_clusters(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "WARP_MOST", 0)
    monkeypatch.setattr(rows, "BLOCK_MOST", 0)
    monkeypatch.setattr(rows, "CLUSTER_THREADS", 32)
    monkeypatch.setattr(rows, "CLUSTERS", 2)  # of 12 rows and 2
    check_rows(length)
    x = odd_rows(length)
    assert_close(norms.softmax(x), reference.norms.softmax(x), rtol=1e-5)
    codes, scales = quantize.quantize_int8(x, True)
    assert_codes(codes, reference.quantize.exact_codes(x)[0], slack=2e-2)
    assert_close(scales, reference.quantize.normalize_quantize(x)[1])


@pytest.mark.parametrize("length", [5, 8, 1028])
def test_odd_rows(length: int) -> None:
    x = odd_rows(length)
    assert_close(norms.softmax(x), reference.norms.softmax(x), rtol=1e-5)
    assert_close(norms.l2_normalize(x), reference.norms.l2_normalize(x))
    assert_close(norms.rms_norm(x, None, 1e-6), reference.norms.rms_norm(x))
    codes, scales = quantize.quantize_int8(x, True)
    assert_codes(codes, reference.quantize.exact_codes(x)[0], slack=2e-2)
    assert_close(scales, reference.quantize.normalize_quantize(x)[1])


def test_the_longest_row_of_a_block() -> None:
    x = normal((1, rows.BLOCK_MOST), 1)
    assert_close(norms.softmax(x), reference.norms.softmax(x), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8), (3, 7), (2, 0), (0, 4), (2, 3, 4)])
def test_back_from_codes(shape: tuple[int, ...]) -> None:
    x = normal(shape, 2)
    codes, scales = quantize.quantize_int8(x, False)
    want = reference.quantize.dequantize_int8(codes, scales)
    assert_close(quantize.dequantize_int8(codes, scales), want)
