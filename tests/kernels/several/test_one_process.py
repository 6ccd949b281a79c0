"""Rows over several GPUs: stores in the host's memory stand for them, of which one may fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_kernels import VectorStore, normalize_quantize
from llcuda_kernels.several.one_process import DeviceLostError, SpreadStore
from tests.support.kernels.cases import normal

DIM = 8


def on_cpu(dim: int, device: int) -> VectorStore:
    return VectorStore(dim, backend="cpu")


class Failing(VectorStore):
    """Its GPU fails at one kind of call."""

    def __init__(self, dim: int, at: str) -> None:
        super().__init__(dim, backend="cpu")
        self._at = at

    def _maybe(self, what: str) -> None:
        if self._at == what:
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")

    def append_codes(self, codes: Any, scales: Any) -> range:
        self._maybe("append_codes")
        return super().append_codes(codes, scales)

    def discard(self, row: int) -> None:
        self._maybe("discard")
        super().discard(row)

    def search(self, queries: Any, k: int) -> tuple[Any, Any]:
        self._maybe("search")
        return super().search(queries, k)

    def arrays(self) -> tuple[Any, Any]:
        self._maybe("arrays")
        return super().arrays()


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_it_is_what_one_store_finds(data: st.DataObject) -> None:
    """Also in pieces, with equal scores over GPUs, what is discarded, and fewer rows than GPUs."""
    rows = data.draw(st.integers(0, 40))
    vectors = normal((rows, DIM), 1)
    if rows > 7:
        vectors[3] = vectors[6] = vectors[2]
    codes, scales = normalize_quantize(vectors, backend="cpu")
    one, many = (
        VectorStore(DIM, backend="cpu"),
        SpreadStore(DIM, range(data.draw(st.integers(1, 4))), make=on_cpu),
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=3)))
    for begin, end in zip([0, *cuts], [*cuts, rows], strict=True):
        assert many.append_codes(codes[begin:end], scales[begin:end]) == one.append_codes(
            codes[begin:end], scales[begin:end]
        )
    for row in data.draw(st.sets(st.integers(0, rows - 1), max_size=3)) if rows else ():
        one.discard(row)
        many.discard(row)
    queries = np.concatenate([normal((2, DIM), 2), vectors[:3]])
    for k in (1, 9):
        for want, got in zip(one.search(queries, k), many.search(queries, k), strict=True):
            np.testing.assert_array_equal(got, want)
    for want, got in zip(one.arrays(), many.arrays(), strict=True):
        np.testing.assert_array_equal(got, want)
    assert len(many) == len(one) == rows


CALLS: dict[str, Callable[[SpreadStore], Any]] = {
    "append_codes": lambda store: store.append_codes(np.ones((3, DIM), np.int8), np.ones(3, "f4")),
    "discard": lambda store: store.discard(1),
    "search": lambda store: store.search(np.ones((1, DIM), np.float32), 2),
    "arrays": lambda store: store.arrays(),
}


@pytest.mark.parametrize("call", CALLS)
def test_when_a_gpu_fails_nothing_is_answered_without_its_rows(call: str) -> None:
    store = SpreadStore(DIM, [4, 5], make=lambda dim, device: Failing(dim, call * (device == 5)))
    if call != "append_codes":
        CALLS["append_codes"](store)
    for name in (call, *CALLS):  # from then on, nothing at all
        with pytest.raises(DeviceLostError, match="GPU 5 failed: CUDA_ERROR_ILLEGAL") as caught:
            CALLS[name](store)
        assert caught.value.device == 5


def test_a_gpu_that_cannot_be_taken_is_lost() -> None:
    def make(dim: int, device: int) -> VectorStore:
        if device:
            raise MemoryError
        return on_cpu(dim, device)

    with pytest.raises(DeviceLostError, match="GPU 1 failed: MemoryError"):
        SpreadStore(DIM, [0, 1], make=make)


def test_what_is_asked_wrongly_loses_no_gpu() -> None:
    store = SpreadStore(DIM, [0, 1], make=on_cpu)
    for wrong, said in (
        (lambda: store.search(np.ones((1, 3), np.float32), 1), "queries are"),
        (lambda: store.search(np.ones((1, DIM), np.float32), 0), "k must be from 1"),
        (lambda: store.append_codes(np.ones((2, 3), np.int8), np.ones(2, "f4")), "codes must be"),
        (lambda: SpreadStore(DIM, []), "devices must be"),
        (lambda: SpreadStore(DIM, [1, 1]), "devices must be"),
    ):
        with pytest.raises(ValueError, match=said):
            wrong()
    with pytest.raises(IndexError, match="row 0 of 0"):
        store.discard(0)
    assert store.search(np.ones((1, DIM), np.float32), 1)[1].tolist() == [[-1]]
