"""Which path is taken: by where the data lies, by what there is, by what was measured."""

from __future__ import annotations

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
