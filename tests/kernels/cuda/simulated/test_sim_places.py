"""The table of `tests/kernels/places` at its small end, through the public operations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference
from llcuda_kernels.cuda import search
from llcuda_kernels.cuda.primitives import strided
from llcuda_kernels.cuda.primitives.nearest.block_topk import FAMILIES, choose
from llcuda_kernels.cuda.runtime import kernel
from llcuda_kernels.cuda.runtime.launch_limits import BY_CAPABILITY, Limits
from llcuda_kernels.runtime import device
from tests.support.kernels.cases import assert_topk
from tests.support.kernels.kinds import spread
from tests.support.kernels.table import OPERATIONS, made, parts


@pytest.fixture(autouse=True)
def simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations take the simulator for a GPU."""
    monkeypatch.setattr(device, "gpu", lambda: device.Gpu(True))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "gemm"])
@pytest.mark.parametrize(
    ("dimensions", "rows", "strides"),
    [
        pytest.param((1, 40), (0, 2), (True,), id="small"),
        pytest.param((768, 1025), (1, 3), (False, True), id="larger", marks=pytest.mark.slow),
    ],
)
def test_an_operation(
    name: str, dimensions: tuple[int, ...], rows: tuple[int, ...], strides: tuple[bool, ...]
) -> None:
    operation = OPERATIONS[name]
    for dim, count, strided_ in itertools.product(dimensions, rows, strides):
        inputs = made(name, dim, count)
        inputs = {key: a[:48] if key == "vectors" else a for key, a in inputs.items()}
        truth = operation.truth(inputs)
        given = {key: spread(a) if strided_ else a for key, a in inputs.items()}
        assert operation.miss(parts(operation.run(given, "cuda")), truth) <= 1, (dim, count)


@pytest.mark.parametrize(
    ("family", "count", "best"),
    [
        ("float32", 2, 3),
        ("int8", 1, 3),
        pytest.param("int8 plain", 1, 3, marks=pytest.mark.slow),
        pytest.param("int8", 2, 200, marks=pytest.mark.slow),
    ],
)
def test_queries_that_do_not_fit_are_read_where_they_lie(
    family: str, count: int, best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "simulated_limits", Limits(33_000, 33_000))
    monkeypatch.setattr(search, "_has_dp4a", lambda: "plain" not in family)
    kind = np.float32 if family == "float32" else np.int8
    assert choose(FAMILIES[family], count, 7800, best)[0] is FAMILIES[family].far
    rng = np.random.default_rng(8)
    q, v = (rng.integers(-9, 10, (n, 31_200 // kind().itemsize)).astype(kind) for n in (count, 5))
    values, rows = k.cosine_topk(q, v, best, backend="cuda")
    assert_topk(values, rows, reference.search.cosine_scores(q, v), best, atol=5e-6)


@pytest.mark.parametrize("kind", [np.int8, np.float16, np.float32, np.int64])
def test_numbers_that_lie_apart_are_packed(kind: type) -> None:
    base: Any = np.arange(2 * 6 * 5 * 7).astype(kind).reshape(2, 6, 5, 7)
    for seen in (base[:, ::2, 1:4, ::3], base.transpose(3, 1, 0, 2), base[0, 1, 2], base[:1, ::2]):
        flat: Any = base.reshape(-1).view({2: np.uint16, 4: np.int32}.get(base.itemsize, kind))
        start = seen.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        start //= base.itemsize
        strides = tuple(n // base.itemsize for n in seen.strides)
        got = strided.pack(flat[start:], seen.shape, strides, kind, "x")
        np.testing.assert_array_equal(got.copy_to_host().view(kind), seen)


def test_more_axes_than_can_be_packed_are_refused() -> None:
    seen = np.zeros((4,) * 5)[::2, ::2, ::2, ::2, ::2]
    strides = tuple(n // 8 for n in seen.strides)
    with pytest.raises(ValueError, match="x has 5 axes apart"):
        strided.pack(seen, seen.shape, strides, np.float64, "x")


def test_a_launch_beyond_the_limits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "simulated_limits", BY_CAPABILITY[5, 2])
    one = FAMILIES["int8"].one
    said = rf"topk_int8: {one.shared} .* 60000 bytes of shared memory"
    with pytest.raises(k.KernelError, match=said):
        one.launch(1, 256, *[0] * len(one.signature), shared=60_000)


def test_tall_matrices_are_multiplied_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Limits(99 << 10, 99 << 10, grid=(2**31 - 1, 2, 2))
    monkeypatch.setattr(kernel, "simulated_limits", few)
    rng = np.random.default_rng(9)
    a, b = rng.integers(-9, 10, (260, 4)), rng.integers(-9, 10, (4, 3))
    for name in ("tiled", "fast"):
        x, y = a.astype(np.float32), b.astype(np.float32)
        np.testing.assert_array_equal(k.matmul(x, y, kernel=name, backend="cuda"), a @ b)
    got = k.matmul_int8(a.astype(np.int8), b.T.astype(np.int8), backend="cuda")
    np.testing.assert_array_equal(got, a @ b)
    for layout in ("awq", "gptq"):
        inputs = made(f"dequantize_int4 {layout}", 40, 2)
        got = OPERATIONS[f"dequantize_int4 {layout}"].run(inputs, "cuda")
        truth = OPERATIONS[f"dequantize_int4 {layout}"].truth(inputs)
        assert OPERATIONS[f"dequantize_int4 {layout}"].miss([got], truth) <= 1
