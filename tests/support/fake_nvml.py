"""NVML without a GPU: a module that answers as the real binding does, from known figures."""

# The names are those of the real one.
# ruff: noqa: N802

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any


class NVMLError(Exception):
    """Any failure."""


@dataclass
class Device:
    """A GPU; what is None it does not support.

    Attributes:
        millijoules, milliwatts: as its queries give them.
        lost: every query fails.
    """

    name: str = "NVIDIA Test"
    millijoules: int | None = 5_000
    milliwatts: int | None = 100_000
    lost: bool = False


@dataclass
class FakeNvml:
    """The names of `pynvml` that are used.

    Attributes:
        error: raised by nvmlInit, where it is not empty.
        opened: how often it is initialised and not yet shut down.
    """

    devices: list[Device] = field(default_factory=lambda: [Device()])
    error: str = ""
    opened: int = 0

    NVML_CLOCK_GRAPHICS = 0
    NVML_CLOCK_MEM = 2
    NVMLError = NVMLError

    def nvmlInit(self) -> None:
        if self.error:
            raise NVMLError(self.error)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        assert self.opened
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        return self.devices[index]

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.10"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 13_010

    def nvmlDeviceGetName(self, device: Device) -> str:
        return device.name

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> Any:
        return types.SimpleNamespace(total=24 * 2**30)

    def nvmlDeviceGetClockInfo(self, device: Device, kind: int) -> int:
        return {0: 345, 2: 810}[kind]

    def nvmlDeviceGetMaxClockInfo(self, device: Device, kind: int) -> int:
        return {0: 1980, 2: 2619}[kind]

    def nvmlDeviceGetEnforcedPowerLimit(self, device: Device) -> int:
        raise NVMLError("Not Supported")

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Device) -> int:
        return self._known(device, device.millijoules)

    def nvmlDeviceGetPowerUsage(self, device: Device) -> int:
        return self._known(device, device.milliwatts)

    def _known(self, device: Device, value: int | None) -> int:
        assert self.opened
        if device.lost:
            raise NVMLError("GPU is lost")
        if value is None:
            raise NVMLError("Not Supported")
        return value
