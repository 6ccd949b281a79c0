"""What a client must find: the figures of a law at a rate of Poisson arrivals."""

from __future__ import annotations

from typing import Any

from .laws import Law
from .queueing import all_busy, response
from .service import Service
from .stalls import Stalls

#: A share of arrivals that find all slots busy below which nobody waits, for all that can be seen.
NOBODY = 1e-6


def truth(service: Service, slots: int, rate: float | None, tokens: int) -> dict[str, Any]:
    """The true figures, in seconds and per second, for JSON.

    "service" is an answer's time once it has a slot; "response" (to the last token) and "first" (to
    the first one) count from the arrival, the wait for a slot included, over Poisson arrivals at
    `rate` in the long run. They are null with a "why" where no formula tells them.

    Args:
        rate: requests/s; None: the figures that depend on it are null.
        tokens: of each answer.
    """
    law = service.law(tokens)
    gaps = service.gap_law(tokens)
    busy_for = law.mean
    if service.kind == "stall":
        busy_for = service.values[-1] / (1 - service.values[0] / service.values[1])
    out: dict[str, Any] = {
        "law": ":".join([service.kind, *(f"{v:g}" for v in service.values)]),
        "slots": slots,
        "rate": rate,
        "tokens": tokens,
        "capacity": slots / busy_for,
        "service": _figures(law),
        "gap": None if gaps is None else _figures(gaps),
        "response": None,
        "first": None,
    }
    if rate is None:
        return {**out, "why": "no rate was given"}
    if rate * busy_for >= slots:
        return {**out, "load": rate * busy_for / slots, "why": "overloaded: the queue only grows"}
    out["load"] = rate * busy_for / slots
    if service.kind == "exponential":
        mean, share = service.values[0], service.share_before_first(tokens)
        whole, first = response(rate, mean, slots), response(rate, mean, slots, share)
    else:
        # While it stalls more come together than on average: as if each took that long, too.
        longest = law.mean + (service.values[0] if service.kind == "stall" else 0.0)
        if all_busy(slots, rate * longest) > NOBODY:
            return {**out, "why": "some requests wait for a slot, for which there is no formula"}
        whole, first = law, service.first_law(tokens)
        if service.kind == "stall":
            clock = Stalls(*service.values[:2])
            whole, first = clock.law(whole.mean), clock.law(first.mean)
    return {**out, "response": _figures(whole), "first": _figures(first)}


def _figures(law: Law) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {"mean": law.mean, **{name: law.quantile(share) for name, share in shares.items()}}
