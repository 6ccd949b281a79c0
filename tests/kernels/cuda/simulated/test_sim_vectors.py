"""All segments of a store searched by one launch, in the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llcuda_kernels import reference
from llcuda_kernels.cpu import quantize
from llcuda_kernels.cuda import vectors
from llcuda_kernels.cuda.primitives.nearest import scan
from llcuda_kernels.cuda.primitives.nearest.segments import STEP
from llcuda_kernels.cuda.runtime import kernel
from llcuda_kernels.cuda.runtime.array import DeviceArray
from llcuda_kernels.cuda.vectors import DeviceSegment
from tests.support.kernels.cases import assert_topk


def codes(shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def segments(v: np.ndarray[Any, Any], sizes: list[int]) -> list[tuple[int, DeviceSegment]]:
    """Segments of these sizes, filled with the rows as far as they go."""
    made, start = [], 0
    inverse = quantize.inverse_norms(v)
    for size in sizes:
        segment = DeviceSegment(size, v.shape[1])
        part = slice(start, start + size)
        segment.write(0, v[part], np.ones(len(v[part]), np.float32), inverse[part])
        made.append((start, segment))
        start += size
    return made


def look(
    made: list[tuple[int, DeviceSegment]], q: np.ndarray[Any, Any], count: int, k: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return DeviceSegment.search(made, q, quantize.inverse_norms(q), count, k)


@pytest.mark.parametrize(
    ("count", "queries", "k"),
    [
        (5, 1, 9),  # the first segment, not full
        (STEP, 2, 5),
        (STEP + 1, 1, 5),
        (4 * STEP - 3, 1, 300),  # the third segment's last step is not whole
        pytest.param(4 * STEP, 9, 130, marks=pytest.mark.slow),
    ],
)
def test_what_the_reference_finds(count: int, queries: int, k: int) -> None:
    v, q = codes((count, 5), 1), codes((queries, 5), 2)
    made = segments(v, [STEP, STEP, 2 * STEP][: 1 + (count > STEP) + (count > 2 * STEP)])
    scores, rows = look(made, q, count, k)
    assert_topk(scores, rows, reference.search.cosine_scores(q, v), k, atol=3e-6)


def test_a_scan_over_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    v, q = codes((3 * STEP + 17, 4), 3), codes((2, 4), 4)
    monkeypatch.setattr(scan, "LEAST_ROWS", 2 * STEP)
    made = segments(v, [STEP, STEP, 2 * STEP])
    scores, rows = look(made, q, len(v), 4)
    assert_topk(scores, rows, reference.search.cosine_scores(q, v), 4, atol=3e-6)


def test_rows_beyond_the_count_and_discarded_rows_are_not_found() -> None:
    v = np.ones((2 * STEP, 4), np.int8)
    made = segments(v, [STEP, STEP])
    made[0][1].discard(1)
    made[1][1].discard(0)
    _, rows = look(made, v[:1], STEP + 3, 600)
    want = [0, *range(2, STEP), STEP + 1, STEP + 2]
    assert rows[0, : len(want)].tolist() == want
    assert (rows[0, len(want) :] == -1).all()


def test_one_copy_to_the_device_and_one_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = segments(codes((STEP + 1, 4), 5), [STEP, STEP])
    copies: list[int] = []
    real_copy, real_back = vectors._copy, DeviceArray.copy_to_host

    def copy(to: Any, at: int, source: Any) -> None:
        copies.append(1)
        real_copy(to, at, source)

    def back(self: Any) -> Any:
        copies.append(-1)
        return real_back(self)

    monkeypatch.setattr(vectors, "_copy", copy)
    monkeypatch.setattr(DeviceArray, "copy_to_host", back)
    launched = []
    real_launch = kernel.Kernel.launch

    def launch(self: Any, *args: Any, **named: Any) -> None:
        launched.append(self.name)
        real_launch(self, *args, **named)

    monkeypatch.setattr(kernel.Kernel, "launch", launch)
    look(made, codes((1, 4), 6), STEP + 1, 3)
    assert copies == [1, -1]
    assert launched == ["topk_int8", "topk_merge"]


def test_a_segment_is_whole_steps() -> None:
    with pytest.raises(ValueError, match="multiple of"):
        DeviceSegment(STEP + 1, 4)
