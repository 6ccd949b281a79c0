"""A scaling curve: starts mpirun for each point, and reads what its rank 0 wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from llcuda_net.bench.runs import mpirun
from llcuda_net.bench.runs.once import Say, silent
from llcuda_net.bench.runs.ranks import Load
from llcuda_net.bench.runs.settings import Settings
from llcuda_net.errors import ConfigError, LlcudaError


@dataclass(frozen=True, slots=True)
class Curve:
    """Which points.

    Attributes:
        sizes: how many ranks or servers, rising.
        over: what they count: "ranks" or "servers".
        ranks: of each point, where servers are counted.
        repeats: of each point, every second one backwards.
    """

    sizes: Sequence[int]
    over: str = "ranks"
    ranks: int = 2
    repeats: int = 3

    @property
    def points(self) -> int:
        """How many points there are, repetitions included."""
        return len(self.sizes) * self.repeats


@dataclass(frozen=True, slots=True)
class Program:
    """The program that every rank of a point runs.

    Attributes:
        name: what its error lines begin with.
        command: given the settings and load of a point and the file for its figures.
    """

    name: str
    command: Callable[[Settings, Load, Path], Sequence[str]]


async def sweep(
    settings: Settings,
    load: Load,
    curve: Curve,
    program: Program,
    found: list[dict[str, Any]],
    say: Say = silent,
) -> None:
    """Run every point of the curve.

    Args:
        found: gets what `ranks.point` gave of each, as soon as it is complete.

    Raises:
        ConfigError: there are too few servers, or there is no mpirun.
        LlcudaError: a point failed, or what is to be measured did not start.
    """
    async with AsyncExitStack() as cleanup:
        servers = settings.server.split(",")
        if settings.start is not None:
            count = max(curve.sizes) if curve.over == "servers" else 1
            stacks = [await cleanup.enter_async_context(settings.running()) for _ in range(count)]
            servers = [each.server for each in stacks]
        if curve.over == "servers" and len(servers) < max(curve.sizes):
            raise ConfigError(
                f"--sweep up to {max(curve.sizes)} servers needs as many: --target A,B,… or --start"
            )

        async def one(size: int, repeat: int) -> dict[str, Any]:
            many, used, own = size, servers, load
            if curve.over == "servers":
                many, used = curve.ranks, servers[:size]
                if load.mode == "weak":  # the load grows with the servers
                    own = replace(load, inflight=load.inflight * size)
            request = replace(settings.request, seed=settings.request.seed + repeat)
            asked = replace(settings, server=",".join(used), start=None, request=request)
            return await run(many, program.name, lambda file: program.command(asked, own, file))

        await points(curve, one, found, say)


async def points(
    curve: Curve,
    one: Callable[[int, int], Awaitable[dict[str, Any]]],
    found: list[dict[str, Any]],
    say: Say = silent,
) -> None:
    """Every point of the curve, each time it is repeated.

    Args:
        one: measures a size; also given which repetition it is, from 0.
        found: gets what it gave.
    """
    for repeat in range(curve.repeats):
        for size in curve.sizes if repeat % 2 == 0 else reversed(curve.sizes):
            say(f"run {repeat + 1} of {curve.repeats}, {size} {curve.over}")
            found.append(await one(size, repeat))


async def run(ranks: int, name: str, command: Callable[[Path], Sequence[str]]) -> dict[str, Any]:
    """Start one point and read its figures.

    Args:
        name: what the program's error lines begin with.
        command: the program of each rank, given the file for its figures.

    Raises:
        ConfigError: there is no mpirun.
        LlcudaError: the point failed.
    """
    with tempfile.TemporaryDirectory(prefix="llcuda-scaling-") as folder:
        file = Path(folder) / "point.json"
        done = await trio.run_process(
            mpirun.command(ranks, command(file)),
            env=mpirun.environment(folder),
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            # A group of its own, so that Ctrl-C reaches it through us, once.
            process_group=0,
        )
        if done.returncode or not file.exists():
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
            own = [line for line in said if line.startswith(name)] or said[-3:]
            raise LlcudaError(f"{ranks} ranks ended with code {done.returncode}: {' '.join(own)}")
        found: dict[str, Any] = json.loads(file.read_text())
        return found
