"""No launch asks for more shared memory than a GPU has, whatever the dimension. No GPU is needed.

`test_compile` holds that what kernels declare is what they take.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels.cuda.runtime.launch_limits import AT_ONCE, BY_CAPABILITY, Limits
from tests.support.kernels.compiling import kernels
from tests.support.kernels.table import DIMENSIONS

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="numba-cuda is for Linux"
)

#: Those of the table, and where a block's 48 KiB, 64 KiB and more are just full.
LENGTHS = sorted(
    {*DIMENSIONS, *range(11_700, 12_400), *range(1016, 1540, 4), *range(15_800, 16_600, 8)}
    | {24_576, 25_088, 57_000, 58_112, 65_536, 100_000, 131_071}
)


@pytest.fixture(params=BY_CAPABILITY, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Limits:
    from llcuda_kernels.cuda.runtime import kernel

    found = BY_CAPABILITY[request.param]
    monkeypatch.setattr(kernel, "limits", lambda: found)
    return found


def test_what_kernels_declare_fits_every_gpu() -> None:
    assert all(kernel.shared <= AT_ONCE for kernel in kernels().values())


def test_queries_of_any_length(limits: Limits) -> None:
    from llcuda_kernels.cuda.primitives.nearest.block_topk import FAMILIES, choose

    for name, family in FAMILIES.items():
        for dim in LENGTHS:
            words = -(-dim // 4) * 4 if name == "float32" else -(-dim // 16) * 4
            for count in (1, 2, 33):
                for best in (1, 128, 129, 1024):
                    kernel, together, dynamic = choose(family, count, words, best)
                    assert kernel.shared + dynamic <= limits.shared
                    assert dynamic == (0 if kernel is family.far else 4 * together * words)
                    near = family.large if best > 128 else family.one
                    assert (kernel is family.far) == (near.shared + 4 * words > limits.shared)
                    if family.by_8 and best <= 128 and count > 1:
                        fits = family.by_8.shared + 32 * words <= limits.shared
                        assert (kernel is family.by_8) == fits


def test_rows_and_scans(limits: Limits) -> None:
    from llcuda_kernels.cuda import tensor_matmul
    from llcuda_kernels.cuda.gemm import warpgroup_few_rows, warpgroup_matmul
    from llcuda_kernels.cuda.primitives import rows
    from llcuda_kernels.cuda.primitives.nearest import coarse, scan
    from llcuda_kernels.cuda.primitives.nearest.segments import Rows
    from llcuda_kernels.cuda.runtime.array import DeviceArray

    for warp, block, cluster, plain in rows.KERNELS.values():
        assert all(kernel.fits(0) for kernel in (warp, block, plain))
        if limits is BY_CAPABILITY[9, 0]:  # eight blocks hold the longest vocabularies
            assert cluster.fits(rows._near(262_144))
    for dim in LENGTHS:
        words = -(-dim // 16) * 4
        row = DeviceArray(0, (1, 4 * words), np.int8, None)
        fit = 4 * words + scan._codes.shared <= limits.shared
        assert scan.fits(Rows.of(row, row), 1) == scan.fits(Rows.of(row, row), 33) == fit
        row = DeviceArray(0, (1, words), np.float32, None)
        fit = 4 * words + scan._floats.shared <= limits.shared
        assert scan.fits(Rows.of(row, row), 2) == fit
        fit = 64 * words + scan._floats_together.shared <= limits.shared
        assert scan.fits(Rows.of(row, row), 3) == fit
        if coarse.takes(Rows.of(row, row), 3):
            warps, shared = coarse._warps(words)
            assert coarse.SCAN.fits(shared)
            assert 32 * warps <= coarse.MOST_THREADS
    if limits is not BY_CAPABILITY[7, 5] and limits is not BY_CAPABILITY[5, 2]:  # no tensor cores
        assert tensor_matmul.BF16.fits(tensor_matmul.SHARED)
        assert tensor_matmul.INT8.fits(tensor_matmul.SHARED)
    if limits is BY_CAPABILITY[9, 0]:
        assert warpgroup_matmul.BF16.fits(warpgroup_matmul.SHARED)
        for shared in warpgroup_few_rows.SHARED.values():  # a block takes 1 KiB more
            together = warpgroup_few_rows.RESIDENT * (shared + 1024)
            assert together <= limits.shared_of_all


def test_a_launch_that_cannot_be_is_told_before_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from llcuda_kernels.cuda.runtime import kernel

    monkeypatch.setattr(kernel, "limits", lambda: BY_CAPABILITY[7, 5])
    spin = kernels()["spin"]
    for grid, block, shared, said in [
        ((1, 65_536), 256, 0, "grid"),
        (1, 2048, 0, "threads"),
        (1, 256, 65_537, "shared memory"),
    ]:
        with pytest.raises(k.KernelError, match=f"spin: .*{said}"):
            spin._checked(grid, block, shared)
    assert spin._checked((3, 2), 256, 65_536) == ((3, 2, 1), (256, 1, 1))


def test_more_than_48_kib_is_asked_for_counting_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch of 40 KiB by a kernel that declares 16 must ask: that was forgotten."""
    from llcuda_kernels.cuda.runtime import driver, shim

    asked: list[Any] = []

    class Native:
        CUfunction_attribute = shim.native.CUfunction_attribute

        def cuFuncSetAttribute(self, function: Any, which: Any, size: int) -> tuple[int]:  # noqa: N802
            asked.append(size)
            return (0,)

    monkeypatch.setattr(driver, "native", Native())
    loaded = driver.Loaded(None, 1, "Q")
    driver.prepare(loaded, 16_480, 32_600)
    driver.prepare(loaded, 0, AT_ONCE)
    driver.prepare(loaded, 16_480, 40_000)
    assert asked == [40_000]
