"""Metrics and the status report of models that a server runs itself."""

from __future__ import annotations

from typing import Any

import trio

from llcuda_net.config.models import ModelSpec
from llcuda_net.models.need import Budget
from llcuda_net.models.serving.manager import Manager
from llcuda_net.telemetry.model_metrics import of_models
from llcuda_protocol import Done
from tests.support.models.local_models import LOAD, serving_models
from tests.support.server.memory_server import ask, ready, status

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _samples(manager: Manager) -> Samples:
    found: Samples = {}
    for family in of_models(manager, 128):
        assert family.documentation
        for one in family.samples:
            found[one.name, frozenset(one.labels.items())] = one.value
    return found


def _of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"llcuda_{name}", frozenset(labels.items())))


async def test_a_swap_is_counted(autojump_clock: object) -> None:
    async with serving_models("a", "b", budget=Budget(15)) as rig:
        peer = await ready(rig.listener)
        for stream, model in ((1, "a"), (2, "b")):
            await peer.send(ask("one two", stream, model=model))
            await peer.until(Done, stream)
            await trio.sleep(60)
        found = _samples(rig.manager)
        assert _of(found, "model_loads_total", model="a") == 1
        assert _of(found, "model_swaps_total", model="a") == 1
        assert _of(found, "model_swaps_total", model="b") == 0
        assert _of(found, "model_load_seconds_total", model="b") == LOAD
        assert _of(found, "model_presence", model="a", presence="unloaded") == 1
        assert _of(found, "model_presence", model="b", presence="loaded") == 1
        assert _of(found, "model_presence", model="b", presence="unloaded") == 0
        assert _of(found, "models_loaded") == 1
        assert _of(found, "models_memory_bytes", kind="host") == 10
        assert _of(found, "models_memory_limit_bytes", kind="host") == 15
        assert _of(found, "models_memory_limit_bytes", kind="gpu") is None
        assert _of(found, "model_memory_needed_bytes", model="a", kind="host") == 10
        rig.manager.unload("b")  # nobody needs its memory
        await trio.sleep(1)
        assert _of(_samples(rig.manager), "model_swaps_total", model="b") == 0


async def test_a_load_that_fails_is_counted(autojump_clock: object) -> None:
    async with serving_models("a") as rig:
        rig.models["a"].failure = "no memory"
        rig.manager.load("a")
        await trio.sleep(2 * LOAD)
        found = _samples(rig.manager)
        assert _of(found, "model_load_failures_total", model="a") == 1
        assert _of(found, "model_loads_total", model="a") == 0


def _model(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["models"] if one["name"] == name)
    return found


async def test_the_report_says_who_waits_and_why(autojump_clock: object) -> None:
    spec = ModelSpec("b", ctx=64, aliases=("other",))
    async with serving_models("a", spec, budget=Budget(10, 20)) as rig:
        peer = await ready(rig.listener)
        rig.models["a"].upstream.paused = True
        await peer.send(ask("one two", model="a"))
        await trio.sleep(LOAD + 1)
        await peer.send(ask("three", 2, model="b"))
        await trio.sleep(1)
        report = await status(rig.listener)
        a, b = _model(report, "a"), _model(report, "b")
        assert (a["presence"], a["running"], a["context"]) == ("loaded", 1, 512)
        assert (b["presence"], b["waiting"], b["context"]) == ("unloaded", 1, 64)
        assert b["reason"] == "model b is loaded when a has had its turn"
        assert 0 < b["ready_in"] < 20
        assert (b["memory"], b["gpu_memory"], b["aliases"]) == (10, 0, ["other"])
        assert report["model_memory"] == {
            "memory": 10,
            "memory_limit": 10,
            "gpu_memory": 0,
            "gpu_memory_limit": 20,
        }
        absent = next(one for one in report["upstreams"] if one["name"] == "b")
        assert (absent["state"], absent["slots"], absent["slots_detail"]) == ("unloaded", None, [])
        earlier = b["ready_in"]
        await trio.sleep(1)
        later = _model(await status(rig.listener), "b")["ready_in"]
        assert later < earlier  # it counts down
