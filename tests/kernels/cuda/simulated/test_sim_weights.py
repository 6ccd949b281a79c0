"""Quantised weights on tensor cores, by small kernels of the same makers as the product's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llcuda_kernels import reference
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up
from llcuda_kernels.cuda.runtime.shim import F32, U16
from llcuda_kernels.cuda.weights import awq_tensor, block_codes, block_tensor, gptq_tensor
from llcuda_kernels.cuda.weights.int4 import _half, _single
from llcuda_kernels.cuda.weights.planes import split
from tests.support.kernels.cases import assert_close, normal
from tests.support.kernels.weights import blocks, make


def test_the_planes_of_a_number_add_up_to_it() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
    numbers = np.append(
        numbers, np.array([0.0, -0.0, 1.0, 3.4028235e38, -1e-30, np.inf, -np.inf], np.float32)
    )
    for x in numbers:
        bits = [np.int32(part) for part in split(x)]
        assert not any(int(b) & 0xFFFF for b in bits)
        h, m, rest = (b.view(np.float32) for b in bits)
        if np.isfinite(x) and abs(x) > 1e-33:  # below, the last plane has no bits left
            assert np.float64(h) + np.float64(m) + np.float64(rest) == np.float64(x)
        elif not np.isfinite(x):
            assert (np.isnan(h) and np.isnan(x)) or h == x
            assert m == rest == 0
    payload = np.array([0x7F800001], np.uint32).view(np.float32)[0]
    assert np.isnan(np.int32(split(payload)[0]).view(np.float32))


def _int4(made: Kernel, given: Any, size: tuple[int, int, int], parts: int, tile: int) -> Any:
    inner, columns, groups = size
    x, q, z, s = (np.ascontiguousarray(a).reshape(-1) for a in given)
    s = s.view(np.uint16) if s.dtype == np.float16 else s
    out = np.full((parts // made.cluster, columns), np.nan, np.float32)
    made.launch(
        divide_up(columns, tile) * parts, made.bounds[0],  # type: ignore[index]
        x, q, z, s, out.reshape(-1), columns, inner // max(1, groups), inner, parts,
        shared=1 << 16,
    )  # fmt: skip
    with np.errstate(invalid="ignore"):
        return out.sum(axis=0)


@pytest.mark.parametrize(
    ("across", "down", "cluster", "parts", "size"),
    [
        (1, 2, 1, 2, (80, 288, 2)),
        (2, 1, 2, 4, (64, 544, 4)),
        (1, 1, 2, 2, (8, 32, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_awq(
    across: int, down: int, cluster: int, parts: int, size: tuple[int, int, int], kind: str
) -> None:
    half = kind == "float16"
    made = awq_tensor.awq(
        f"awq_{across}{down}{cluster}{kind}", U16 if half else F32, _half if half else _single,
        across, down, cluster, 4, 1,
    )  # fmt: skip
    q, z, s, meant = make(*size, "awq", seed=5)
    x = normal((size[0],), 6)
    got = _int4(made, (x, q, z, s.astype(kind)), size, parts, 256 * across)
    assert_close(got, x @ meant, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("across", "down", "cluster", "parts", "size"),
    [
        (1, 2, 1, 2, (320, 40, 5)),
        (2, 1, 2, 4, (256, 96, 2)),
        (1, 1, 2, 2, (32, 8, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_gptq(
    across: int, down: int, cluster: int, parts: int, size: tuple[int, int, int], kind: str
) -> None:
    half = kind == "float16"
    made = gptq_tensor.gptq(
        f"gptq_{across}{down}{cluster}{kind}", U16 if half else F32, _half if half else _single,
        across, down, cluster, 4, 1,
    )  # fmt: skip
    q, z, s, meant = make(*size, "gptq", seed=5)
    x = normal((size[0],), 6)
    got = _int4(made, (x, q, z, s.astype(kind)), size, parts, 32 * across)
    assert_close(got, x @ meant, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["awq", "gptq"])
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_infinity_meets_what_the_reference_multiplies_it_with(layout: str, odd: float) -> None:
    size = (64, 32, 2)
    maker = awq_tensor.awq if layout == "awq" else gptq_tensor.gptq
    made = maker(f"{layout}_odd", U16, _half, 1, 1, 1, 4, 1)
    q, z, s, meant = make(*size, layout, seed=5)
    x = normal((size[0],), 6)
    x[35] = odd
    with np.errstate(invalid="ignore"):
        want = x.astype(np.float64) @ meant
        got = _int4(made, (x, q, z, s), size, 1, 256 if layout == "awq" else 32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)])


@pytest.mark.parametrize("kind", sorted(block_codes.FORMATS))
@pytest.mark.parametrize(
    ("columns", "used", "tall", "cluster", "parts", "rows", "chunks"),
    [
        (1, 1, 8, 1, 2, 8, 3),
        (1, 1, 1, 1, 1, 8, 9),
        (2, 1, 2, 2, 4, 40, 5),
        pytest.param(8, 5, 8, 1, 1, 8, 1, marks=pytest.mark.slow),
        pytest.param(2, 2, 8, 2, 2, 136, 2, marks=pytest.mark.slow),
    ],
)
def test_blocks(
    kind: str, columns: int, used: int, tall: int, cluster: int, parts: int, rows: int, chunks: int
) -> None:
    form = block_codes.FORMATS[kind]
    made = block_tensor.times(
        f"{kind}_{columns}{tall}{cluster}", form, columns, tall, cluster, 2, 1
    )
    raw = blocks(kind, rows, chunks * (8 if kind == "q4_0" else 1))
    x = normal((used, 256 * chunks), 6)
    out = np.full((parts // cluster, used, rows), np.nan, np.float32)
    made.launch(
        divide_up(rows, 16 * tall) * parts, block_tensor.THREADS,
        x.reshape(-1), raw.reshape(-1).view(np.int32), out.reshape(-1), rows, chunks, parts,
        used - 1, shared=4 * block_tensor.shared_words(form, columns, 2, divide_up(chunks, parts)),
    )  # fmt: skip
    want = reference.weights.blocks.times_vector(x, raw, kind)
    assert_close(out.sum(axis=0), want, rtol=1e-5, atol=1e-5 * float(np.abs(want).max()))
