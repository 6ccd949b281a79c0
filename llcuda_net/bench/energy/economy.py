"""What a token takes: joules, watts and cost, with intervals over repeats.

Joules are those of a measuring window, idle ones included, over what came in it: output tokens as
they arrived, requests as they ended. `above_idle` takes away what the devices took before anything
was asked. Each repeat gives one value; three or more give Student's interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llcuda_net.bench.energy.money import TOKENS, Prices
from llcuda_net.bench.energy.sampler import Sampler
from llcuda_net.bench.statistics.estimates import Estimate, student

#: Repeats under which a mean has no interval.
LEAST = 3


@dataclass(frozen=True, slots=True)
class Window:
    """A measuring window: what came in it, and what it took.

    Attributes:
        seconds: its length.
        tokens, requests: output tokens that arrived in it, requests that ended in it.
        joules: by device.
    """

    seconds: float
    tokens: float
    requests: float
    joules: dict[str, float | None]

    @property
    def total(self) -> float | None:
        """Joules of all devices together; None where there is none, or one is not known."""
        known = [each for each in self.joules.values() if each is not None]
        return sum(known) if known and len(known) == len(self.joules) else None


def figures(
    windows: Sequence[Window], prices: Prices, idle_watts: float | None = None
) -> dict[str, Any]:
    """The figures of one load's windows, for JSON.

    Returns:
        `watts`, `joules_per_token`, `joules_per_token_above_idle`, `joules_per_request` and
        `cost_per_million_tokens`: estimates; None where one is not known of every window.
    """

    def over(value: Callable[[Window], float | None], least: float = 0.0) -> dict[str, Any] | None:
        values = [value(window) for window in windows]
        known = [each for each in values if each is not None]
        return _estimate(known, least) if known and len(known) == len(values) else None

    def above(window: Window) -> float | None:
        if window.total is None or idle_watts is None:
            return None
        return _per(window.total - idle_watts * window.seconds, window.tokens)

    def cost(window: Window) -> float | None:
        paid = prices.cost(window.total, window.seconds)
        return None if paid is None else _per(paid * TOKENS, window.tokens)

    return {
        "watts": over(lambda window: _per(window.total, window.seconds)),
        "joules_per_token": over(lambda window: _per(window.total, window.tokens)),
        "joules_per_token_above_idle": over(above, -math.inf),
        "joules_per_request": over(lambda window: _per(window.total, window.requests)),
        "cost_per_million_tokens": over(cost),
    }


def per_window(windows: Sequence[Window], prices: Prices) -> dict[str, list[float]]:
    """One value a window of what runs are compared by, where each has it."""
    found = {}
    for name in ("joules_per_token", "cost_per_million_tokens"):
        values = [figures([window], prices)[name] for window in windows]
        if values and None not in values:
            found[name] = [float(each["value"]) for each in values]
    return found


def machine(sampler: Sampler, windows: Sequence[Window], prices: Prices) -> dict[str, Any]:
    """What is known of the whole run, for JSON: devices, idle watts, what is missing, prices."""
    seconds = sum(window.seconds for window in windows)
    devices = []
    for meter in sampler.meters:
        taken = [window.joules.get(meter.name) for window in windows]
        known = [each for each in taken if each is not None]
        whole = len(known) == len(taken) and seconds > 0
        devices.append(
            {
                "name": meter.name,
                "kind": meter.kind,
                "method": meter.method,
                "idle_watts": sampler.idle_watts.get(meter.name),
                "watts": sum(known) / seconds if whole else None,
            }
        )
    return {
        "devices": devices,
        "idle_watts": idle(sampler),
        "missing": [{"kind": each.kind, "why": each.why} for each in sampler.missing],
        "prices": prices.as_dict(),
    }


def of_point(sampler: Sampler, window: Window, prices: Prices) -> dict[str, Any]:
    """What a process tells of its one window, for JSON: see `of_points`."""
    return {**machine(sampler, [window], prices), "window": asdict(window)}


def of_points(points: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The figures of what `of_point` gave of each repeat; None where one of them told nothing."""
    known = [point for point in points if point is not None]
    if not known or len(known) < len(points):
        return None
    idles = [point["idle_watts"] for point in known]
    idle_watts = None if None in idles else sum(idles) / len(idles)
    windows = [Window(**point["window"]) for point in known]
    return figures(windows, Prices.from_dict(known[0]["prices"]), idle_watts)


def together(points: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """What `machine` would say of all points; None where none told anything."""
    known = [point for point in points if point is not None]
    if not known:
        return None
    devices = []
    for device in known[0]["devices"]:
        same = [d for point in known for d in point["devices"] if d["name"] == device["name"]]
        means = {}
        for name in ("idle_watts", "watts"):
            values = [each[name] for each in same]
            means[name] = None if None in values else sum(values) / len(values)
        devices.append({**device, **means})
    missing = []
    for each in (each for point in known for each in point["missing"]):
        if each not in missing:
            missing.append(each)
    idles = [point["idle_watts"] for point in known]
    mean = None if None in idles else sum(idles) / len(idles)
    prices = known[0]["prices"]
    return {"devices": devices, "idle_watts": mean, "missing": missing, "prices": prices}


def idle(sampler: Sampler) -> float | None:
    """Watts of all devices before anything was asked; None where one is not known."""
    known = [watts for watts in sampler.idle_watts.values() if watts is not None]
    return sum(known) if known and len(known) == len(sampler.idle_watts) else None


def _per(value: float | None, count: float) -> float | None:
    return value / count if value is not None and count > 0 else None


def _estimate(values: Sequence[float], least: float) -> dict[str, Any]:
    found = student(values)
    assert found is not None
    if len(values) < LEAST:
        many = "one repeat" if len(values) == 1 else f"{len(values)} repeats"
        return {**Estimate(found.value).as_dict(), "why": many}
    assert found.low is not None
    return {**Estimate(found.value, max(least, found.low), found.high).as_dict()}
