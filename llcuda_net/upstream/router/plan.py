"""Which models a router is to load, and which make room for them: a pure function.

A router loads as many models as it was started for. It makes room itself, by ending the process of
the model that was used longest ago and works at nothing. What it does not do is let one that always
works come to an end: under two users who alternate, or one who never pauses, another model would
never have its turn, or each request would load a model. So here

1. a model that was loaded stays for STAY seconds at least, if it is asked anything meanwhile;
2. then, where another one is waited for, it leaves: it gets nothing new, and finishes what it has;
3. who has waited longest is loaded first, and one model leaves for each that has no room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llcuda_net.upstream.router.listing import Status

#: Seconds for which a model stays loaded that has work, whoever waits for another.
STAY = 10.0
#: Seconds without work after which one need not stay.
PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a router, as far as the plan needs it.

    Attributes:
        status: as the router has it.
        wanted_since: since when somebody waits for it, on trio's clock; None: nobody does.
        loaded_since: since when its process runs.
        used: when it last had work.
        busy: it has work of ours now.
        leaving: it makes room already.
    """

    name: str
    status: Status
    wanted_since: float | None = None
    loaded_since: float = 0.0
    used: float = 0.0
    busy: bool = False
    leaving: bool = False


class Plan(NamedTuple):
    """What is to be done now.

    Attributes:
        load: models to have loaded; there is room, or one that works at nothing makes it.
        leave: each that is to leave, with the model that it makes room for.
    """

    load: tuple[str, ...]
    leave: dict[str, str]


def plan(models: Sequence[Model], limit: int | None, now: float) -> Plan:
    """What a router is to do.

    Args:
        limit: how many models it loads at once; None: any number.
        now: on trio's clock.
    """
    waited_for = sorted(
        (one for one in models if one.status is Status.UNLOADED and one.wanted_since is not None),
        key=lambda one: one.wanted_since or 0.0,
    )
    running = [one for one in models if one.status is not Status.UNLOADED]
    room = len(models) if limit is None else limit - len(running)
    # Those that leave already come first, or each look would choose others.
    victims = sorted(
        (one for one in running if one.leaving or _may_leave(one, now)),
        key=lambda one: (not one.leaving, one.busy, one.used),
    )
    load, leave = [], {}
    # One that makes room for what is loaded already gets nothing before the router has ended it.
    arriving = next((one.name for one in running if one.status is Status.LOADING), "another")
    while room < 0 and victims and victims[0].leaving:
        leave[victims.pop(0).name] = arriving
        room += 1
    for wanted in waited_for:
        if room > 0:
            room -= 1
            load.append(wanted.name)
        elif victims:
            victim = victims.pop(0)
            leave[victim.name] = wanted.name
            if not victim.busy:
                load.append(wanted.name)
    return Plan(tuple(load), leave)


def _may_leave(model: Model, now: float) -> bool:
    if model.status is Status.LOADING:
        return False
    idle = not model.busy and now - model.used >= PAUSE
    return idle or now - model.loaded_since >= STAY
