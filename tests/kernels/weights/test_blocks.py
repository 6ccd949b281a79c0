"""GGUF's blocks on the CPU: bit by bit what the `gguf` package reads, and products of that."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llcuda_kernels as k
from llcuda_kernels import reference
from llcuda_kernels.weights.blocks import BLOCKS
from tests.support.kernels.cases import assert_close, normal
from tests.support.kernels.weights import blocks

KINDS = sorted(BLOCKS)
DEQUANTIZE = {kind: getattr(k, f"dequantize_{kind}") for kind in KINDS}


def by_gguf(raw: np.ndarray, kind: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(gguf.dequantize(raw, gguf.GGMLQuantizationType[kind.upper()]))


def same_bits(got: Any, want: Any) -> bool:
    return bool(np.array_equal(got.view(np.uint32), want.view(np.uint32)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sizes_are_those_of_the_gguf_package(kind: str) -> None:
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.upper()]] == BLOCKS[kind]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_bytes_are_read_as_the_gguf_package_reads_them(kind: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    size = count * BLOCKS[kind].bytes
    raw = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    want = by_gguf(raw.reshape(1, -1), kind)
    for got in (
        reference.weights.blocks.dequantize(raw.reshape(1, -1), kind),
        DEQUANTIZE[kind](raw.reshape(1, -1), backend="cpu"),
    ):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        there = ~np.isnan(want)
        assert same_bits(got[there], want[there])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (1, 1), (7, 3), (2, 3, 2)])
def test_shapes(kind: str, shape: tuple[int, ...]) -> None:
    width = shape[-1] * BLOCKS[kind].bytes
    raw = blocks(kind, int(np.prod(shape[:-1])), shape[-1]).reshape(*shape[:-1], width)
    got = DEQUANTIZE[kind](raw, backend="cpu")
    assert got.shape == (*shape[:-1], shape[-1] * BLOCKS[kind].numbers)
    if got.size:
        assert same_bits(got, by_gguf(raw, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("columns", "rows", "count"), [(1, 5, 3), (2, 1, 1), (9, 3, 2), (0, 3, 1)])
def test_times_vector(kind: str, columns: int, rows: int, count: int) -> None:
    raw = blocks(kind, rows, count)
    x = normal((columns, count * BLOCKS[kind].numbers), 3)
    want = reference.weights.blocks.times_vector(x, raw, kind)
    got = k.blocks_times_vector(x, raw, kind, backend="cpu")  # type: ignore[arg-type]
    assert_close(got, want, rtol=1e-4, atol=1e-3)
    if columns:
        one = k.blocks_times_vector(x[0], raw, kind, backend="cpu")  # type: ignore[arg-type]
        assert one.shape == (rows,)
        assert_close(one, want[0], rtol=1e-4, atol=1e-3)


def test_no_rows_and_no_numbers() -> None:
    x = np.ones((2, 32), np.float32)
    assert k.blocks_times_vector(x, np.zeros((0, 18), np.uint8), "q4_0").shape == (2, 0)
    none = k.blocks_times_vector(x[:, :0], np.zeros((3, 0), np.uint8), "q4_0")
    np.testing.assert_array_equal(none, np.zeros((2, 3), np.float32))


def test_what_is_refused() -> None:
    raw = blocks("q4_k", 2, 1)
    with pytest.raises(ValueError, match="not whole blocks of 144"):
        k.dequantize_q4_k(raw[:, :143])
    with pytest.raises(ValueError, match="one of q4_0"):
        k.blocks_times_vector(np.ones(256, np.float32), raw, "q5_k")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x is \(255,\)"):
        k.blocks_times_vector(np.ones(255, np.float32), raw, "q4_k")
    with pytest.raises(ValueError, match="1 dimensions, and must have 2"):
        k.blocks_times_vector(np.ones(256, np.float32), raw[0], "q4_k")
    with pytest.raises(TypeError, match="float32, and must be uint8"):
        k.dequantize_q4_k(np.zeros((1, 144), np.float32))
