"""Which path is taken: by where the data lies, by what there is, by what was measured."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import arrays
from llcuda_kernels.runtime import backend, crossover, device


class OnDevice:
    """What an array in a GPU's memory looks like from outside."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.size, self.dtype = shape, math.prod(shape), np.dtype(np.float32)
        self.__cuda_array_interface__ = {"shape": shape}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a GPU; nothing runs on it."""
    monkeypatch.setattr(device, "gpu", lambda: device.Gpu(True))
    monkeypatch.setattr(crossover, "gpu", lambda: device.Gpu(True))
    monkeypatch.setattr(crossover, "_thresholds", {})


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpu", lambda: device.Gpu(False, "no driver"))
    monkeypatch.setattr(crossover, "gpu", lambda: device.Gpu(False, "no driver"))


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_says_why() -> None:
    x = np.ones(1 << 20, np.float32)
    assert not backend.use_cuda("auto", "relu", (x,), 1 << 40)
    with pytest.raises(k.BackendError, match="relu: no CUDA here: no driver"):
        backend.use_cuda("cuda", "relu", (x,), 0)
    with pytest.raises(k.BackendError):
        k.relu(OnDevice((3,)))
    with pytest.raises(k.BackendError):
        k.to_device(x)


@pytest.mark.usefixtures("gpu")
def test_data_on_the_device_decides() -> None:
    there, here = OnDevice((4,)), np.ones(4, np.float32)
    assert backend.use_cuda("auto", "vector_add", (here, there), 0)
    assert backend.use_cuda("cuda", "vector_add", (here, None), 0)
    assert not backend.use_cuda("auto", "vector_add", (here, here), 0)
    with pytest.raises(TypeError, match="lies on the device"):
        backend.use_cuda("cpu", "vector_add", (here, there), 0)
    with pytest.raises(ValueError, match="backend must be"):
        backend.use_cuda("gpu", "vector_add", (here,), 0)
    with pytest.raises(TypeError, match="copy it to the host"):
        arrays.host(there, np.float32, "x")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("cuda_cost", "expected"),
    [
        (lambda size: 1.0, crossover.SIZES[2]),  # the CPU takes 0.02, 0.17 and 1.3
        (lambda size: 0.05, crossover.SIZES[1]),
        (lambda size: 0.0, crossover.SIZES[0]),
        (lambda size: 9.0, math.inf),
    ],
)
def test_the_crossover_is_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, cuda_cost: object, expected: float
) -> None:
    now = 0.0

    def run(which: str, size: int) -> None:
        nonlocal now
        now += cuda_cost(size) if which == "cuda" else size * 1e-8 * 2  # type: ignore[operator]

    monkeypatch.setitem(crossover._probes, "relu", run)
    assert crossover.measure("relu", clock=lambda: now) == expected
    assert crossover.known() == {"relu": expected}
    for size in crossover.SIZES:
        assert crossover.cuda_is_faster("relu", size) == (size >= expected)
    assert not crossover.cuda_is_faster("relu", crossover.SMALL - 1)
    assert not crossover.cuda_is_faster("no such operation", 1 << 40)


for _module in ("elementwise", "embeddings", "norms", "products", "search", "tokens", "weights"):
    importlib.import_module(f"llcuda_kernels.{_module}")


@pytest.mark.parametrize("name", sorted(crossover._probes))
def test_every_probe_runs_on_the_cpu(name: str) -> None:
    crossover._probes[name]("cpu", crossover.SIZES[0])


def test_the_simulator_is_no_gpu() -> None:
    code = "import llcuda_kernels as k; print(k.gpu().usable, k.gpu().reason)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("False ")


def test_arrays_keep_their_kind() -> None:
    assert arrays.host([1, 2], np.float32, "x").dtype == np.float32
    assert arrays.host(np.array([1e300]), np.float32, "x")[0] == np.inf
    with pytest.raises(TypeError, match="x is float64, and must be int8"):
        arrays.host(np.ones(2), np.int8, "x")
    with pytest.raises(ValueError, match="x has 1 dimensions, and must have 2"):
        arrays.host(np.ones(2), np.float32, "x", 2)


def test_every_public_name_is_there() -> None:
    for name in k.__all__:
        assert getattr(k, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = k.no_such_name
