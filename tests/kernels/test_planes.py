"""Bytes of blocks to planes and back: bit for bit, for any fields and any number of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_kernels import PLANE_FIELDS, join_planes, reference, split_planes
from llcuda_kernels.cpu.jit import FEW
from llcuda_kernels.planes import MAX_BLOCK, runs_of

FIELDS = st.one_of(
    st.sampled_from(list(PLANE_FIELDS.values())),
    st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    st.integers(1, MAX_BLOCK).map(lambda width: (width,)),
    st.integers(1, MAX_BLOCK).map(lambda count: (1,) * count),
)


def noise(n: int) -> Any:
    return np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)


@given(fields=FIELDS, n=st.integers(0, 5000), first=st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_any_bytes(fields: tuple[int, ...], n: int, first: int) -> None:
    data = noise(n + first)[first:]  # at any address
    planes = split_planes(data, fields, backend="cpu")
    np.testing.assert_array_equal(planes, reference.planes.split_planes(data, fields))
    np.testing.assert_array_equal(join_planes(planes, fields, backend="cpu"), data)
    np.testing.assert_array_equal(reference.planes.join_planes(planes, fields), data)


@given(
    kind=st.sampled_from(["f16", "f32", "q8_0", "q5_1", "q4_0"]),
    n=st.integers(0, 300_000),
    first=st.integers(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_many_bytes_are_spread_over_the_cores(kind: str, n: int, first: int) -> None:
    data = noise(n + first)[first:]
    planes = split_planes(data, kind, backend="cpu")
    np.testing.assert_array_equal(planes, reference.planes.split_planes(data, PLANE_FIELDS[kind]))
    np.testing.assert_array_equal(join_planes(planes, kind, backend="cpu"), data)


def test_each_path_of_the_cpu() -> None:
    for fields in ((1, 1), (2, 3), (1, 1, 32), (1, 4, 16)):
        size = sum(fields)
        data = noise(FEW // size * size + size)
        for n in (data.size, data.size - size):  # the least for which cores are woken, and not
            planes = split_planes(data[:n], fields, backend="cpu")
            want = reference.planes.split_planes(data[:n], fields)
            np.testing.assert_array_equal(planes, want)
            np.testing.assert_array_equal(join_planes(planes, fields, backend="cpu"), data[:n])


def test_where_the_planes_lie() -> None:
    data = np.arange(2 * 34 + 3, dtype=np.uint8)
    planes = split_planes(data, "q8_0", backend="cpu")
    assert planes[:4].tolist() == [0, 34, 1, 35]
    assert planes[4:68].tolist() == [*range(2, 34), *range(36, 68)]
    assert planes[68:].tolist() == [68, 69, 70]


def test_what_a_state_of_float16_gains() -> None:
    """Exponents that are alike lie side by side."""
    x = np.random.default_rng(0).standard_normal(1 << 14).astype("<f2")
    high = split_planes(x.view(np.uint8), "f16", backend="cpu")[1 << 14 :]
    assert np.unique(high).size < 128
    assert np.unique(x.view(np.uint8)).size == 256


def test_runs() -> None:
    assert runs_of("q8_0") == ((2, 1), (1, 32))
    assert runs_of([3, 3, 1]) == ((2, 3), (1, 1))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ((), "at least 1 byte"),
        ((0, 2), "at least 1 byte"),
        ((1000, 25), "at most 1024 together"),
        ((1, 2, 1, 2, 1), "change their width 4 times"),
        ("q9", "one of f16, bf16"),
    ],
)
def test_what_cannot_be_split(fields: Any, said: str) -> None:
    for function in (split_planes, join_planes):
        with pytest.raises(ValueError, match=said):
            function(noise(40), fields)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="2 dimensions"):
        split_planes(noise(40).reshape(2, 20), "f16")
    with pytest.raises(TypeError, match="float32"):
        split_planes(np.zeros(4, np.float32), "f16", backend="cpu")
