"""Arrays of each library, in memory or on a GPU, made so that mistakes in the order show.

A `Kind` makes arrays of one library. On a stream that does not wait for the default one, an array
is filled late: first the stream is busy, then NaN (or large numbers) in it is overwritten.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

import llcuda_kernels as k

Host = np.ndarray[Any, Any]


def spread(array: Host) -> Host:
    """The same numbers, every second one of memory twice as large."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), _poison(array.dtype), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def _poison(kind: np.dtype[Any]) -> Any:
    return np.nan if kind.kind == "f" else np.iinfo(kind).max // 3


class Kind:
    """NumPy's arrays."""

    name = "NumPy"
    #: Whether its arrays can lie on a GPU, and which GPUs it can use.
    gpus = 0

    def __str__(self) -> str:
        return self.name

    def array(self, given: Host, gpu: int, strided: bool, late: bool) -> Any:
        """An array with these numbers."""
        return spread(given) if strided and given.ndim else given

    def numpy(self, result: Any) -> Host:
        """A result's numbers; raises AssertionError where it is not of this kind."""
        assert type(result) is np.ndarray, type(result)
        return result

    @contextlib.contextmanager
    def stream(self, gpu: int) -> Iterator[None]:
        """Within it, this library works on a stream that does not wait for the default one."""
        with k.StreamManager() as streams, streams.use("its own"):
            yield


class Ours(Kind):
    """Arrays that `to_device` makes."""

    name = "DeviceArray"
    gpus = 1

    def array(self, given: Host, gpu: int, strided: bool, late: bool) -> Any:
        return k.to_device(given)

    def numpy(self, result: Any) -> Host:
        assert type(result).__name__ == "DeviceArray", type(result)
        return k.to_host(result)


class Cupy(Kind):
    """CuPy's."""

    name = "CuPy"

    def __init__(self) -> None:
        self._cupy: Any = importlib.import_module("cupy")
        self.gpus = self._cupy.cuda.runtime.getDeviceCount()
        self._wait = self._cupy.RawKernel(
            'extern "C" __global__ void wait(long long n)'
            "{ long long t = clock64(); while (clock64() - t < n); }",
            "wait",
        )

    def array(self, given: Host, gpu: int, strided: bool, late: bool) -> Any:
        cupy = self._cupy
        with cupy.cuda.Device(gpu):
            shape = (*given.shape[:-1], 2 * given.shape[-1]) if strided else given.shape
            made = cupy.full(shape, _poison(given.dtype), given.dtype)
            seen = made[..., ::2] if strided else made
            source = cupy.asarray(given)
            if late:
                self._wait((1,), (1,), (np.int64(150_000),))
            seen[...] = source
            return seen

    def numpy(self, result: Any) -> Host:
        assert type(result) is self._cupy.ndarray, type(result)
        with self._cupy.cuda.Device(result.device.id):
            found: Host = self._cupy.asnumpy(result)
            return found

    @contextlib.contextmanager
    def stream(self, gpu: int) -> Iterator[None]:
        with self._cupy.cuda.Device(gpu):
            stream = self._cupy.cuda.Stream(non_blocking=True)
        with self._cupy.cuda.Device(gpu), stream, self._cupy.cuda.Device(0):
            yield


class Torch(Kind):
    """PyTorch's, on the CPU or on a GPU."""

    name = "PyTorch"

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        self.gpus = self._torch.cuda.device_count()

    def _tensor(self, given: Host) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(given))

    def array(self, given: Host, gpu: int, strided: bool, late: bool) -> Any:
        torch = self._torch
        device = f"cuda:{gpu}" if self.gpus and gpu >= 0 else "cpu"
        source = self._tensor(given).to(device)
        if given.dtype == np.uint16:  # it has few operations for these; bfloat16 has the same bits
            source = source.view(torch.bfloat16)
        if given.dtype == np.uint32:
            source = source.view(torch.int32)
        shape = (*given.shape[:-1], 2 * given.shape[-1]) if strided else given.shape
        poison = _poison(given.dtype) if given.dtype.kind != "u" else 1
        made = torch.full(shape, poison, dtype=source.dtype, device=device)
        seen = made[..., ::2] if strided else made
        if late and device != "cpu":
            with torch.cuda.device(gpu):
                torch.cuda._sleep(150_000)
        seen.copy_(source)
        return seen.view(torch.uint32) if given.dtype == np.uint32 else seen

    def numpy(self, result: Any) -> Host:
        assert type(result) is self._torch.Tensor, type(result)
        found: Host = result.cpu().numpy()
        return found

    @contextlib.contextmanager
    def stream(self, gpu: int) -> Iterator[None]:
        torch = self._torch
        with torch.cuda.stream(torch.cuda.Stream(device=f"cuda:{gpu}")), torch.cuda.device(0):
            yield


class TorchOnCpu(Torch):
    """PyTorch's, in the host's memory."""

    name = "PyTorch, CPU"

    def __init__(self) -> None:
        super().__init__()
        self.gpus = 0

    def numpy(self, result: Any) -> Host:
        assert result.device.type == "cpu"
        return super().numpy(result)


class Exchanged:
    """An array that has DLPack's two methods and nothing else."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class Faced:
    """An array that has ``__cuda_array_interface__`` and nothing else."""

    def __init__(self, array: Any) -> None:
        self._array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        face: dict[str, Any] = self._array.__cuda_array_interface__
        return face


class Dlpack(Kind):
    """Whatever has DLPack; results are NumPy's."""

    name = "DLPack"

    def array(self, given: Host, gpu: int, strided: bool, late: bool) -> Any:
        return Exchanged(super().array(given, gpu, strided, late))


def there(name: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(name) is not None


def on_cpu() -> list[Kind]:
    """Kinds of arrays in the host's memory that can be had here."""
    return [Kind(), Dlpack(), *([TorchOnCpu()] if there("torch") else [])]


def on_gpu() -> list[Kind]:
    """Kinds that can lie on a GPU, and NumPy's."""
    found: list[Kind] = [Kind(), Ours()]
    found += [Cupy()] if there("cupy") else []
    found += [Torch()] if there("torch") else []
    return found
