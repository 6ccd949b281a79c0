"""The exact nearest, and what finds the k best."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_kernels import reference
from llcuda_kernels.cpu import quantize
from llcuda_kernels.cuda import norms, search
from llcuda_kernels.cuda.primitives.nearest import coarse, scan
from llcuda_kernels.cuda.primitives.nearest.block_topk import SMALL_K
from llcuda_kernels.cuda.primitives.nearest.segments import Rows
from llcuda_kernels.cuda.runtime.array import DeviceArray, empty, to_device
from tests.support.kernels.cases import assert_close, assert_topk, normal, odd_rows


def codes(shape: tuple[int, ...], seed: int, most: int = 127) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.int8)


def check(q: np.ndarray, v: np.ndarray, k: int, known: np.ndarray | None = None) -> None:
    values, rows = search.cosine_topk(q, v, k, known)
    scores = reference.search.cosine_scores(q, v)
    if known is not None:
        scores[:, np.isnan(known)] = np.nan
    assert_topk(values, rows, scores, k, atol=3e-6)


@pytest.mark.parametrize(
    ("count", "dim", "queries", "k"),
    [
        (1, 1, 1, 1),
        (5, 16, 2, 9),
        (131, 17, 1, 10),
        (scan.LEAST_ROWS + 1, 3, 1, 5),  # enough of them to be scanned
        (33, 5, 9, 5),  # more queries than go together
        pytest.param(300, 17, 1, 10, marks=pytest.mark.slow),
        pytest.param(1100, 16, 1, 128, marks=pytest.mark.slow),
        pytest.param(200, 24, 9, 5, marks=pytest.mark.slow),
    ],
)
def test_codes(count: int, dim: int, queries: int, k: int) -> None:
    check(codes((queries, dim), 1), codes((count, dim), 2), k)


@pytest.mark.parametrize(
    ("count", "k"), [(140, SMALL_K + 1), pytest.param(2200, 1024, marks=pytest.mark.slow)]
)
def test_many_of_them(count: int, k: int) -> None:
    check(codes((1, 16), 3), codes((count, 16), 4), k)


#: Three blocks take 128 rows a step: of 400 the first takes two steps, and its buffer is full.
@pytest.mark.parametrize("count", [400, pytest.param(1200, marks=pytest.mark.slow)])
def test_rows_that_get_better_and_better_fill_the_buffer_again_and_again(count: int) -> None:
    v = codes((count, 16), 5)
    q = codes((1, 16), 6)
    order = np.argsort(reference.search.cosine_scores(q, v)[0])
    check(q, v[order], 20)
    check(q, v[order[::-1]], 20)


@pytest.mark.parametrize(
    ("count", "fewer"), [(129, 131), pytest.param(900, 500, marks=pytest.mark.slow)]
)
def test_equal_scores_come_in_the_order_of_rows(count: int, fewer: int) -> None:
    v = np.ones((count, 4), np.int8)
    _, rows = search.cosine_topk(v[:1], v, 7)
    np.testing.assert_array_equal(rows[0], np.arange(7))
    check(codes((2, 3), 1, most=1), codes((fewer, 3), 2, most=1), 40)


@pytest.mark.parametrize("count", [33, pytest.param(300, marks=pytest.mark.slow)])
def test_floats(count: int) -> None:
    check(normal((1, 12), 1), normal((count, 12), 2), 12)
    x = odd_rows(8)
    check(x[4:5], x, 12)


def test_what_is_taken_out_and_what_is_not_there() -> None:
    v = codes((200, 8), 7)
    known = np.ones(200, np.float32) / np.sqrt((v.astype(np.float64) ** 2).sum(axis=1))
    known = known.astype(np.float32)
    known[33] = np.nan
    check(v[33:34], v, 10, known)
    check(v[:2], v[:0], 3)
    assert search.cosine_topk(v[:0], v, 3)[0].shape == (0, 3)


def test_codes_without_dp4a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_has_dp4a", lambda: False)
    check(codes((1, 20), 1), codes((140, 20), 2), 6)


def test_a_scan_of_floats() -> None:
    """With one query, and with two; rows of every size of numbers among them."""
    v = normal((scan.LEAST_ROWS + 7, 6), 3)
    x = odd_rows(6)
    v[100 : 100 + len(x)] = x
    check(normal((2, 6), 4), v, 5)


def test_a_scan_whose_lists_are_too_short_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    v = codes((scan.LEAST_ROWS + 9, 4), 5)
    q = codes((2, 4), 6)
    order = np.argsort(reference.search.cosine_scores(q, v)[0])  # the best of one query last
    monkeypatch.setattr(scan, "ROOM", 4)
    check(q, v[order], 3)


def test_the_host_does_not_wait_for_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    from llcuda_kernels.cuda.runtime.array import DeviceArray

    v, q = to_device(codes((scan.LEAST_ROWS + 9, 4), 5)), to_device(codes((1, 4), 6))

    def waits(self: DeviceArray) -> None:
        raise AssertionError("the host waits")

    with monkeypatch.context() as patch:
        patch.setattr(DeviceArray, "copy_to_host", waits)
        search.cosine_topk(q, v, 3)


def test_inverse_norms() -> None:
    v = codes((20, 33), 8)
    v[3] = 0
    want = [0 if not row.any() else 1 / np.sqrt((row.astype(float) ** 2).sum()) for row in v]
    assert_close(search.inverse_norms(v), want)
    x = odd_rows(5)
    found = search.inverse_norms(to_device(x)).copy_to_host()
    assert np.isnan(found[1])
    assert found[0] == 0
    assert_close(found, quantize.inverse_norms(x), rtol=1e-6)
    wide = normal((3, 300), 9) * np.array([[1e-30], [1.0], [1e30]], np.float32)
    assert_close(search.inverse_norms(wide), quantize.inverse_norms(wide), rtol=1e-6)
    assert empty((0,), np.float32).nbytes == 0


def test_rows_that_were_noted_are_scored_exactly() -> None:
    """After a coarse scan: those that reach the limit are kept, wherever they lie."""
    v, q = normal((70, 12), 1), normal((3, 12), 2)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    v[7], v[9] = 0, v[9] * np.float32(1e-39)
    scores = reference.search.cosine_scores(q, v)
    limits = np.sort(scores, axis=1)[:, ::-1][:, :5].astype(np.float32) - np.float32(1e-5)
    noted = np.stack([np.random.default_rng(i).permutation(70) for i in range(3)]).astype(np.int32)
    rows = Rows.of(to_device(v), norms.inverse_norms_float32(to_device(v)))
    keys, counts = empty((3, 80), np.int64), to_device(np.zeros(3, np.int32))
    coarse.look_again(
        to_device(q), to_device(np.ones(3, np.float32)), rows, 5, to_device(limits),
        to_device(noted), to_device(np.array([70, 40, 71], np.int32)), keys, counts,
    )  # fmt: skip
    found = counts.copy_to_host()
    for i, there in ((0, 70), (1, 40)):
        want = [r for r in noted[i, :there] if scores[i, r] >= limits[i, 4]]
        assert found[i] == len(want)
        got = [2**31 - 1 - (int(key) & (2**31 - 1)) for key in keys.copy_to_host()[i, : found[i]]]
        assert sorted(got) == sorted(want)
    assert found[2] > 80  # more were noted than there was room for: none is known


def test_a_coarse_scan_is_for_several_queries_of_floats_that_fit() -> None:
    def takes(words: int, count: int, kind: type = np.float32) -> bool:
        width = words if kind is np.float32 else 4 * words
        row = DeviceArray(None, (1, width), kind, None)
        return coarse.takes(Rows(row, row, 1, 1, None), count)

    assert takes(768, 2)
    assert takes(1536, 33)
    assert not takes(768, 1)
    assert not takes(768, 2, np.int8)
    assert not takes(772, 2)
    assert not takes(1552, 2)
