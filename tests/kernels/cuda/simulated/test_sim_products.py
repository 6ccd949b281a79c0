"""Products, int4 weights and load; what tensor cores do is proved on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llcuda_kernels import from_bf16, reference, to_bf16
from llcuda_kernels.cuda import matmul, products, synthetic_load, tensor_matmul
from llcuda_kernels.cuda.gemm import (
    few_rows,
    library,
    tensor_few_rows,
    warpgroup_few_rows,
    warpgroup_matmul,
)
from llcuda_kernels.cuda.runtime.array import empty, to_device
from llcuda_kernels.cuda.weights import blocks
from llcuda_kernels.cuda.weights import int4 as weights
from llcuda_kernels.weights.blocks import BLOCKS
from tests.support.kernels.cases import assert_close, normal
from tests.support.kernels.weights import blocks as make_blocks
from tests.support.kernels.weights import make

SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (17, 5, 33), (20, 36, 18)]


@pytest.mark.parametrize("kernel", ["tiled", "fast"])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32(kernel: str, shape: tuple[int, int, int]) -> None:
    m, n, inner = shape
    a, b = normal((m, inner), 1), normal((inner, n), 2)
    want = reference.products.matmul(a, b)
    assert_close(products.matmul(a, b, kernel), want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [5, pytest.param(130, marks=pytest.mark.slow)])
def test_float32_in_whole_tiles_and_beyond(rows: int) -> None:
    a, b = normal((rows, 20), 1), normal((20, 132), 2)
    x, y, out = to_device(a), to_device(b), empty((rows, 132), np.float32)
    matmul.float32("fast", x, y, out, True)
    want = reference.products.matmul(a, b)
    assert_close(out.copy_to_host(), want, rtol=1e-4, atol=1e-3)
    if rows > few_rows.MOST:
        assert_close(products.matmul(a, b, "auto"), want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, pytest.param(18, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("n", "inner", "parts"),
    [
        (132, 68, 1),  # beyond a block's columns and a step; whole vectors
        (132, 130, 2),  # rows of A in no whole vectors; parts of k
        (130, 132, 3),  # rows of B in none
        pytest.param(3, 70, 1, marks=pytest.mark.slow),
    ],
)
def test_float32_of_few_rows(rows: int, n: int, inner: int, parts: int) -> None:
    a, b = normal((rows, inner), 1), normal((inner, n), 2)
    out = empty((rows, n), np.float32)
    few_rows.launch(to_device(a), to_device(b), out, parts)
    assert_close(out.copy_to_host(), reference.products.matmul(a, b), rtol=1e-4, atol=1e-3)


def test_parts_fill_the_device_and_are_not_too_short() -> None:
    assert few_rows.parts_for(1, 100, 2) == 4  # two multiprocessors with two blocks each
    assert few_rows.parts_for(3, 100, 2) == 1
    assert few_rows.parts_for(1, 9, 2) == 2
    assert few_rows.parts_for(1000, 1, 2) == 1


@pytest.mark.parametrize(
    ("shape", "capability"),
    [
        *((shape, (7, 5)) for shape in [*SHAPES, (65, 3, 5)]),
        ((17, 5, 33), (5, 0)),
        pytest.param((65, 70, 24), (7, 5), marks=pytest.mark.slow),
    ],
)
def test_int8(
    shape: tuple[int, int, int], capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_capability", lambda: capability)
    m, n, inner = shape
    rng = np.random.default_rng(3)
    a = rng.integers(-128, 128, (m, inner)).astype(np.int8)
    b = rng.integers(-128, 128, (n, inner)).astype(np.int8)
    got = products.matmul_int8(a, b)
    np.testing.assert_array_equal(got, reference.products.matmul_int8(a, b))


def test_bf16_without_tensor_cores() -> None:
    a, b = to_bf16(normal((5, 9), 1)), to_bf16(normal((7, 9), 2))
    want = reference.products.matmul_bf16(a, b)
    assert_close(products.matmul_bf16(a, b), want, rtol=1e-4, atol=1e-3)
    assert products.matmul_bf16(a[:0], b).shape == (0, 7)


@pytest.mark.parametrize("kind", ["float32", "int8", "bf16"])
def test_many_rows_go_to_the_library_unless_ours_are_asked_for(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def multiply(x: Any, y: Any, to: Any, *, transposed: bool) -> None:
        called.append((x.shape, y.shape, to.shape, transposed))

    ours: Any = (few_rows, tensor_few_rows, tensor_matmul, warpgroup_few_rows, warpgroup_matmul)
    for module in ours:
        monkeypatch.setattr(module, "launch", lambda *args: None)
    monkeypatch.setattr(matmul, "float32", lambda *args: None)
    monkeypatch.setattr(library, "takes", lambda x, to: True)
    monkeypatch.setattr(library, "multiply", multiply)
    monkeypatch.setattr(products, "_capability", lambda: (9, 0))
    run: Any = {
        "float32": lambda m, which: products.matmul(
            np.ones((m, 4), np.float32), np.ones((4, 3), np.float32), which
        ),
        "int8": lambda m, which: products.matmul_int8(
            np.ones((m, 4), np.int8), np.ones((3, 4), np.int8), which
        ),
        "bf16": lambda m, which: products.matmul_bf16(
            np.ones((m, 4), np.uint16), np.ones((3, 4), np.uint16), which
        ),
    }[kind]
    floats = kind == "float32"
    most = few_rows.FASTER if floats else tensor_few_rows.FASTER
    run(most, "auto")
    for rows in (most + 1, 65):
        run(rows, "fast" if floats else "mma")
    assert not called
    for rows in (most + 1, 65):
        run(rows, "auto")
        assert called.pop() == ((rows, 4), (4, 3) if floats else (3, 4), (rows, 3), not floats)


@pytest.mark.parametrize(
    ("capability", "few", "many"),
    [
        ((8, 0), tensor_few_rows, tensor_matmul),
        ((9, 0), warpgroup_few_rows, warpgroup_matmul),  # the only one that knows wgmma
        ((10, 0), tensor_few_rows, tensor_matmul),
    ],
)
@pytest.mark.parametrize("rows", [64, 65])
def test_which_kernels_multiply_on_which_tensor_cores(
    rows: int, capability: tuple[int, int], few: Any, many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    ours: Any = (tensor_few_rows, tensor_matmul, warpgroup_few_rows, warpgroup_matmul)
    for module in ours:
        monkeypatch.setattr(module, "launch", lambda *args, m=module: called.append((m, args[0])))
    monkeypatch.setattr(products, "_capability", lambda: capability)
    products.matmul_int8(np.ones((rows, 5), np.int8), np.ones((3, 5), np.int8), "mma")
    products.matmul_bf16(np.ones((rows, 5), np.uint16), np.ones((3, 5), np.uint16), "mma")
    module = few if rows == 64 else many
    assert called == [(module, module.INT8), (module, module.BF16)]


@pytest.mark.parametrize(("width", "whole"), [(8, 8), (5, 8), (9, 16), (16, 16)])
def test_rows_padded_to_whole_pieces(width: int, whole: int) -> None:
    """What products of few rows on tensor cores are given."""
    half = to_bf16(normal((3, width), 1))
    got = products._whole(to_device(half), 1, 16).copy_to_host().view(np.uint16)
    np.testing.assert_array_equal(got, np.pad(half, ((0, 0), (0, whole - width))))
    odd = np.arange(1, 1 + 3 * width, dtype=np.int8).reshape(3, width)
    got = products._whole(to_device(odd), 1, 16).copy_to_host().view(np.int8)
    np.testing.assert_array_equal(got, np.pad(odd, ((0, 0), (0, 16 - width))))


def test_rows_padded_to_whole_tiles() -> None:
    x = to_device(to_bf16(normal((3, 5), 1)))
    whole = products._whole(x, 128, 64).copy_to_host()
    assert whole.shape == (128, 16)
    want = from_bf16(x.copy_to_host())
    assert_close(from_bf16(whole.view(np.uint16))[:3, :5], want, atol=0)
    assert not whole[3:].any()
    odd = to_device(np.arange(1, 16, dtype=np.int8).reshape(3, 5))
    bytes_ = products._whole(odd, 128, 64).copy_to_host().view(np.int8)
    np.testing.assert_array_equal(bytes_[:3, :5], odd.copy_to_host())
    assert not bytes_[:, 5:].any()


@pytest.mark.parametrize("layout", ["awq", "gptq"])
@pytest.mark.parametrize(
    "size",
    [
        (8, 8, 1),
        (64, 40, 4),
        (8, 264, 1),
        (64, 64, 2),
        (128, 0, 1),
        (0, 8, 0),
        pytest.param((256, 264, 2), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_int4(layout: str, size: tuple[int, int, int], kind: str) -> None:
    inner, columns, groups = size
    qweight, qzeros, scales, meant = make(inner, columns, groups, layout, seed=5)
    scales = scales.astype(kind)
    awq = layout == "awq"
    if kind == "float16":
        got = weights.dequantize(qweight, qzeros, scales, awq, inner)
        assert_close(got, meant, rtol=1e-6, atol=0)
    x = normal((inner,), 6)
    got = weights.times_vector(x, qweight, qzeros, scales, awq)
    assert_close(got, x @ meant, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(8, 8, 1), (64, 40, 5), (8, 264, 1), (0, 8, 0)])
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_int4_with_rows_that_name_their_group(size: tuple[int, int, int], kind: str) -> None:
    inner, columns, groups = size
    of = np.random.default_rng(3).integers(0, max(1, groups), inner).astype(np.int32)
    qweight, qzeros, scales, meant = make(inner, columns, groups, "gptq", seed=5, of=of)
    scales = scales.astype(kind)
    got = weights.dequantize(qweight, qzeros, scales, False, inner, of)
    assert_close(got, meant, rtol=1e-6, atol=0)
    x = normal((inner,), 6)
    got = weights.times_vector(x, qweight, qzeros, scales, False, of)
    assert_close(got, x @ meant, rtol=1e-4, atol=1e-3)


def test_load() -> None:
    seeds = np.arange(300, dtype=np.uint32)
    np.testing.assert_array_equal(
        synthetic_load.run("spin", seeds, 5), reference.synthetic_load.spin(seeds, 5)
    )
    x = normal((300,), 1)
    assert_close(synthetic_load.run("post", x, 20), reference.synthetic_load.post(x, 20))
    assert synthetic_load.run("post", x[:0], 20).shape == (0,)
    assert matmul.THREADS == 256


@pytest.mark.parametrize("kind", sorted(BLOCKS))
@pytest.mark.parametrize("size", [(1, 8), (3, 24), (0, 8), (3, 0)])
def test_gguf_blocks(kind: str, size: tuple[int, int]) -> None:
    rows, count = size
    if BLOCKS[kind].numbers == 256:
        count //= 8
    raw = make_blocks(kind, rows, count)
    inner = count * BLOCKS[kind].numbers
    want = reference.weights.blocks.dequantize(raw, kind)
    got = blocks.dequantize(raw, kind, BLOCKS[kind], (rows, inner))
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    x = normal((3, inner), 6)
    product = x.astype(np.float64) @ want.astype(np.float64).T
    for columns in (1, 3):
        got = blocks.times_vector(x[:columns], raw, kind, BLOCKS[kind])
        assert_close(got, product[:columns], rtol=1e-4, atol=1e-3)
    assert_close(
        blocks.times_vector(x[0], raw, kind, BLOCKS[kind]), product[0], rtol=1e-4, atol=1e-3
    )


def test_gguf_blocks_of_more_columns_than_one_reading_serves() -> None:
    raw = make_blocks("q8_0", 2, 3)
    x = normal((10, 96), 6)
    want = reference.weights.blocks.times_vector(x, raw, "q8_0")
    assert_close(blocks.times_vector(x, raw, "q8_0", BLOCKS["q8_0"]), want, rtol=1e-4, atol=1e-3)
