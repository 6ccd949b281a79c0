"""The graphics processors of the computer that measured, by NVIDIA's own library."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.energy import nvml


def gpus() -> dict[str, Any]:
    """The driver, and each GPU; null with a reason in `unknown` where that is not known."""
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
