"""NVIDIA GPUs, by NVIDIA's own library (NVML): what they are, and what they take.

Since Volta a GPU counts its millijoules itself (nvmlDeviceGetTotalEnergyConsumption). Where it does
not (older ones, most virtual ones, instances of MIG) its power is sampled and integrated; a driver
gives the mean of up to a second there, so that short windows are less sure.

Source: NVIDIA, "NVML API Reference Guide", sections "Device Queries" and "System Queries".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llcuda_net.bench.energy.meters import Meter, MeterError, Missing, integrated

_ABSENT = "nvidia-ml-py is not installed: pip install 'llcuda-net[bench]'"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the GPUs of this machine are.

    Attributes:
        gpus: a dictionary each, for JSON; see `facts`.
        driver: the driver's version; "" where there is none.
        cuda: the newest CUDA that the driver runs: "13.0".
        why: why there is nothing; "" where there is something.
    """

    gpus: tuple[dict[str, Any], ...] = ()
    driver: str = ""
    cuda: str = ""
    why: str = ""


def facts() -> Facts:
    """What the GPUs are: for each its name, memory, clocks and power limit.

    Keys of each: index, name, memory_gib, clock_mhz and memory_clock_mhz (now), max_clock_mhz,
    max_memory_clock_mhz, power_limit_watts; None where the GPU does not tell.
    """
    with library() as (nvml, why):
        if nvml is None:
            return Facts(why=why)
        gpus = [_facts(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        driver = _asked(nvml, nvml.nvmlSystemGetDriverVersion) or ""
        number = _asked(nvml, nvml.nvmlSystemGetCudaDriverVersion)
        cuda = "" if number is None else f"{number // 1000}.{number % 1000 // 10}"
        return Facts(tuple(gpus), driver, cuda, "" if gpus else "the driver has no GPU")


def _facts(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    graphics, memory = nvml.NVML_CLOCK_GRAPHICS, nvml.NVML_CLOCK_MEM
    size = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    limit = _asked(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return {
        "index": index,
        "name": _asked(nvml, nvml.nvmlDeviceGetName, handle),
        "memory_gib": None if size is None else round(size.total / 2**30, 1),
        "clock_mhz": _asked(nvml, nvml.nvmlDeviceGetClockInfo, handle, graphics),
        "memory_clock_mhz": _asked(nvml, nvml.nvmlDeviceGetClockInfo, handle, memory),
        "max_clock_mhz": _asked(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, graphics),
        "max_memory_clock_mhz": _asked(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, memory),
        "power_limit_watts": None if limit is None else limit / 1e3,
    }


def _asked(nvml: Any, call: Callable[..., Any], *args: Any) -> Any:
    """What a query gives; None where this GPU does not support it."""
    try:
        return call(*args)
    except nvml.NVMLError:
        return None


@contextmanager
def library() -> Iterator[tuple[Any, str]]:
    """NVML, initialised for the length of the block; or None, and why."""
    try:
        import pynvml as nvml
    except ImportError:
        yield None, _ABSENT
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        yield None, f"NVML: {error}"
        return
    try:
        yield nvml, ""
    finally:
        nvml.nvmlShutdown()


class GpuMeter:
    """One GPU's joules: by its own counter, else by its power.

    Args:
        nvml: the library, initialised for as long as this is read.

    Raises:
        MeterError: it tells neither.
    """

    kind = "gpu"
    blocks = True

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        named = _asked(nvml, nvml.nvmlDeviceGetName, self._handle) or "unnamed"
        self.name = f"GPU {index}, {named}"
        self._joules = 0.0
        self._before: tuple[float, float] | None = None
        if _asked(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, self._handle) is not None:
            self.method = "energy counter"
        elif _asked(nvml, nvml.nvmlDeviceGetPowerUsage, self._handle) is not None:
            self.method = "power, integrated"
        else:
            raise MeterError(f"{self.name} tells neither energy nor power")

    def __repr__(self) -> str:
        return f"<GpuMeter of {self.name} by {self.method}>"

    def joules(self, now: float) -> float:
        """See `Meter`."""
        try:
            if self.method == "energy counter":
                counted = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
                self._joules = max(self._joules, counted / 1e3)
                return self._joules
            sample = (now, self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3)
        except self._nvml.NVMLError as error:
            raise MeterError(f"{self.name}: {error}") from None
        if self._before is not None:
            self._joules += integrated(self._before, sample)
        self._before = sample
        return self._joules


@contextmanager
def meters() -> Iterator[tuple[list[Meter], list[Missing]]]:
    """The GPUs that tell their energy, to be read within the block; and why others do not."""
    with library() as (nvml, why):
        if nvml is None:
            yield [], [Missing("gpu", why)]
            return
        found: list[Meter] = []
        missing = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found.append(GpuMeter(nvml, index))
            except MeterError as error:
                missing.append(Missing("gpu", str(error)))
        if not found and not missing:
            missing.append(Missing("gpu", "the driver has no GPU"))
        yield found, missing
