"""The graphics processors of the computer that measured, by NVIDIA's own library."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def gpus() -> dict[str, Any]:
    """The driver, and each GPU; null with a reason in `unknown` where that is not known."""
    try:
        nvml: Any = import_module("llcuda_net.bench.energy.nvml")
    except ModuleNotFoundError:
        why = "this llcuda has no part that asks NVML"
        names = ("devices", "driver", "cuda")
        return {**dict.fromkeys(names), "unknown": dict.fromkeys(names, why)}
    found = nvml.facts()
    unknown = {}
    if not found.gpus:
        unknown["devices"] = found.why or "the driver has no GPU"
    for name, value in (("driver", found.driver), ("cuda", found.cuda)):
        if not value:
            unknown[name] = found.why or "the driver does not say"
    return {
        "devices": [dict(each) for each in found.gpus] or None,
        "driver": found.driver or None,
        "cuda": found.cuda or None,
        "unknown": unknown,
    }
