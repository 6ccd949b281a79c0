"""Loads that can never succeed, and what follows one that has failed. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable

from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.state import ModelState
from llcuda_net.upstream.engine.load_progress import human_size

#: Seconds after which a model is tried again whose load has failed so many times in a row.
_BACKOFF = (2.0, 10.0, 30.0, 120.0, 300.0)
#: Loads without memory enough after which a model is given up, and what more each has.
MOST_MEMORY_TRIES, _GROWTH = 3, 1.25


def backoff(failures: int) -> float:
    """Seconds until a model is tried again after so many loads in a row that failed."""
    return _BACKOFF[min(max(failures, 1), len(_BACKOFF)) - 1]


def killed(reason: str) -> bool:
    """Whether a load failed because somebody ended its process, not by itself."""
    return "was ended by SIGKILL" in reason or "was ended by SIGTERM" in reason


def need_after_no_memory(need: Need, measured: Need | None, failures: int) -> Need | None:
    """The need of a model whose load found too little memory; None: it is given up.

    Args:
        measured: what it has asked for, where that is known.
        failures: how many loads have failed in a row for that reason, this one included.
    """
    if failures >= MOST_MEMORY_TRIES:
        return None
    grown = Need(math.ceil(need.host * _GROWTH), math.ceil(need.gpu * _GROWTH))
    if measured is None:
        return grown
    more = Need(max(need.host, measured.host), max(need.gpu, measured.gpu))
    return grown if more == need else more


def refusal(model: ModelState, models: Iterable[ModelState], budget: Budget) -> str | None:
    """Why a model can never be loaded, in one line with the remedy; None where it can.

    Args:
        models: all of them; what is pinned among them leaves no room.
    """
    pinned = [one for one in models if one.pinned and one.name != model.name]
    held = sum((one.need for one in pinned), Need())
    room = budget.room
    for what, need, whole, taken in (
        ("GPU memory", model.need.gpu, room.gpu, held.gpu),
        ("memory", model.need.host, room.host, held.host),
    ):
        option = "--gpu-memory" if what == "GPU memory" else "--memory"
        needs = f"model {model.name} needs {human_size(need)} of {what}"
        if need > whole:
            return (
                f"{needs}, and all models together may use "
                f"{human_size(whole)}: use a smaller context or quantisation, or a larger {option}"
            )
        if 0 < need > whole - taken:
            names = ", ".join(sorted(one.name for one in pinned))
            left = human_size(max(0, whole - taken))
            return (
                f"{needs}, and beside the pinned {names} "
                f"there is {left}: pin fewer models, or use a larger {option}"
            )
    return None
