"""The policy under anything that may happen to models, in any order; and broken policies.

`World` raises where the policy does what it must never do: more memory than there is, a model that
generates unloaded, a pinned one sent away, an action that contradicts the presence. At the end time
passes, and whatever waits for a model that can be loaded must have been served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)

from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving import policy
from llcuda_net.models.serving.loads import refusal
from llcuda_net.models.serving.policy import RULES, Rules
from llcuda_net.models.serving.state import ModelState, Plan
from llcuda_net.upstream.residence import Presence
from tools.swaps.world import BrokenPolicyError, Model, Planner, Request, World

NAMES = ["a", "b", "c", "d", "e"]
SIZES = [4, 6, 8, 10, 19]
names = st.sampled_from(NAMES)


class Machine(RuleBasedStateMachine):
    """Five models, room for two or three of them, and whatever may happen."""

    planner: Planner = staticmethod(policy.plan)
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        models = [
            Model(name, Need(gpu=size), takes=1.0 + size / 4, slots=2)
            for name, size in zip(NAMES, SIZES, strict=True)
        ]
        models[1].idle_seconds = 20.0
        self.world = World(models, Budget(gpu=20), planner=type(self).planner)

    @rule(target=requests, name=names, seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def submit(self, name: str, seconds: float) -> Request:
        request = self.world.submit(name, seconds)
        self.world.settle()
        return request

    @rule(target=requests, names=st.lists(names, min_size=3, max_size=8))
    def burst(self, names: list[str]) -> object:
        found = [self.world.submit(name, 2.0) for name in names]
        self.world.settle()
        return multiple(*found)

    @rule(request=consumes(requests))
    def cancel(self, request: Request) -> None:
        self.world.cancel(request)
        self.world.settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    @rule(name=names)
    def crash(self, name: str) -> None:
        self.world.crash(name)
        self.world.settle()

    @rule(name=names, how=st.sampled_from(["memory", "error", "error"]))
    def next_load_fails(self, name: str, how: str) -> None:
        self.world.models[name].fails.append(how)

    @rule(name=names, more=st.integers(1, 3))
    def larger_than_estimated(self, name: str, more: int) -> None:
        one = self.world.models[name]
        one.really = Need(gpu=one.need.gpu + more)

    @rule(gpu=st.sampled_from([12, 20, 24, 30]))
    def budget_changes(self, gpu: int) -> None:
        self.world.budget = Budget(gpu=gpu)
        self.world.excuse()
        self.world.settle()

    @rule(name=names)
    def pin_or_not(self, name: str) -> None:
        one = self.world.models[name]
        one.pinned = not one.pinned
        self.world.settle()

    @rule(name=names, wanted=st.booleans())
    def asked_by_hand(self, name: str, wanted: bool) -> None:
        one = self.world.models[name]
        if wanted or one.presence is not Presence.UNLOADED:
            one.wanted = wanted
        self.world.settle()

    def teardown(self) -> None:
        """Whoever waits for what can be loaded is served."""
        world = self.world
        for one in world.models.values():
            one.fails.clear()
            one.really = None
        world.run(world.now + 3600)
        states = world.states()
        for one in world.models.values():
            if one.waiting and refusal(world.state(one), states, world.budget) is None:
                raise BrokenPolicyError(f"{one.name} is never loaded: {world}")
            if one.running or one.presence in (Presence.LEAVING, Presence.UNLOADING):
                raise BrokenPolicyError(f"{one.name} is stuck: {world}")
            missing = one.presence is not Presence.LOADED and not one.given_up
            if one.pinned and missing and one.wanted is not False:
                held = [m for m in states if m.pinned and m.name != one.name]
                if sum((m.need for m in held), one.need).within(world.budget.room):
                    raise BrokenPolicyError(f"{one.name} is pinned, and not loaded")
            if one.presence is Presence.LOADED and one.idle_seconds and not one.pinned:
                raise BrokenPolicyError(f"{one.name} is idle, and never unloaded")


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
)


def test_a_pinned_model_that_was_unloaded_by_hand_stays_so_until_it_is_asked_for() -> None:
    """Whether its process ends by itself or is killed meanwhile."""
    for killed in (False, True):
        machine = Machine()
        machine.pin_or_not("a")
        machine.time_passes(5.0)
        machine.asked_by_hand("a", False)
        if killed:
            machine.crash("a")
        machine.time_passes(30.0)
        one = machine.world.models["a"]
        assert (one.presence, one.wanted) == (Presence.UNLOADED, False)
        machine.teardown()
        machine.submit("a", 0.5)
        machine.time_passes(30.0)
        assert (one.presence, one.wanted) == (Presence.LOADED, None)
        machine.teardown()


# -- broken policies: each must be noticed -------------------------------------------------------

Change = Callable[[list[ModelState], Plan], Plan]


def _broken(change: Change) -> Planner:
    def planner(models: Iterable[ModelState], budget: Budget, now: float, rules: Rules) -> Plan:
        known = list(models)
        return change(known, policy.plan(known, budget, now, rules))

    return planner


def _blind(**what: Any) -> Planner:
    """A policy that takes all models for what they are not."""

    def planner(models: Iterable[ModelState], budget: Budget, now: float, rules: Rules) -> Plan:
        return policy.plan([replace(m, **what) for m in models], budget, now, rules)

    return planner


def _unbounded(models: Iterable[ModelState], _: Budget, now: float, rules: Rules) -> Plan:
    return policy.plan(models, Budget(), now, rules)


def _forgets_the_unloading(
    models: Iterable[ModelState], budget: Budget, now: float, rules: Rules
) -> Plan:
    left = [m for m in models if m.presence is not Presence.UNLOADING]
    return policy.plan(left, budget, now, rules)


BROKEN: dict[str, Planner] = {
    "unloads what generates": _broken(
        lambda models, made: replace(made, unload=made.unload + made.leave, leave=())
    ),
    "sees nothing run": _blind(running=0),
    "knows no bound": _unbounded,
    "takes memory for free while a process ends": _forgets_the_unloading,
    "sends pinned ones away": _blind(pinned=False),
    "tries failed ones at once": _blind(failed_until=-math.inf),
    "unloads nobody": _broken(lambda models, made: replace(made, unload=())),
    "lets nobody leave": _broken(lambda models, made: replace(made, leave=())),
    "never looks again": _broken(lambda models, made: replace(made, again_at=None)),
    "keeps idle ones": _blind(idle_seconds=None),
    "loads what is loaded": _broken(
        lambda models, made: replace(
            made, load=made.load + tuple(m.name for m in models if m.presence is Presence.LEAVING)
        )
    ),
    "does not see who waits": _blind(waiting=0),
    "lets everybody stay": _broken(
        lambda models, made: replace(
            made, stay=tuple(m.name for m in models if m.presence is Presence.LEAVING)
        )
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_policy_is_noticed(how: str) -> None:
    class Broken(Machine):
        planner = staticmethod(BROKEN[how])

    with pytest.raises(BrokenPolicyError):
        run_state_machine_as_test(
            Broken,
            settings=settings(
                max_examples=400,
                stateful_step_count=30,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_the_machine_is_given_the_rules_of_the_product() -> None:
    assert Machine().world.rules == RULES
