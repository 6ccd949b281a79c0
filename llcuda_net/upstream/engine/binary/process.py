"""One life of a llama-server, from its start to its end; the counterpart of `run_child`.

It is asked for any free port, and prints which one it has. A build that cannot do that is started
again on a port that was free a moment ago, with another one where somebody was faster.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import trio

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import RequestError
from llcuda_net.upstream.engine.binary.arguments import command_line
from llcuda_net.upstream.engine.binary.look import GBNF, Ability, look
from llcuda_net.upstream.engine.process import (
    ChildEnd,
    ChildProcess,
    ChildSettings,
    child_environment,
)
from llcuda_net.upstream.engine.programs.program import Program
from llcuda_net.upstream.llama.transport.origin import Origin

log = structlog.get_logger(__name__)

_KEEPER = Path(__file__).with_name("keeper.py")
_PORTS = 5  # that are tried, where it cannot choose one itself
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25  # seconds between two looks at whether it is ready
_HEALTH_TIMEOUT = 5.0
_ADDRESS = re.compile(
    r"listening on (?:\w+://)?[^\s/]*:(\d+)|is listening, hostname: \S+ port: (\d+)"
)
_TAKEN = re.compile(r"couldn't bind")

#: Variables by which a llama-server would be set up behind our back; the rest of the environment,
#: such as CUDA_VISIBLE_DEVICES and LLAMA_CACHE, it has from us.
_NOT_PASSED = ("LLAMA_ARG_", "LLAMA_LOG_", "LLAMA_SERVER_", "AIP_")
_NOT_PASSED_WHOLE = frozenset({"LLAMA_API_KEY", "LLAMA_OFFLINE"})


class BinaryLaunch:
    """Runs a llama-server, as `run_child` runs the built-in engine.

    Attributes:
        ability: what it was seen to be able to do; None: it has not been up.
        embeds: whether it can embed beside completions, as far as was seen.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.embeds = True
        self._chooses_port = True
        self.ability: Ability | None = None

    async def __call__(
        self,
        settings: ChildSettings,
        on_start: Callable[[int], None],
        on_ready: Callable[[str], None],
    ) -> ChildEnd:
        """Run it until it ends; see `Launch`."""
        tries = _PORTS
        while True:
            port = 0 if self._chooses_port else _free_port()
            if settings.completions and not self.embeds:
                settings = replace(settings, embeddings=False)
            keeper = await Keeper.start(_KEEPER, binary_environment(os.environ))
            keeper.set_up(settings, on_start, on_ready, self._learn)
            try:
                end = await keeper.watch(
                    {
                        "command": command_line(self._program, settings, port),
                        "environment": {"LLAMA_API_KEY": settings.api_key},
                        "nice": settings.nice,
                    }
                )
            finally:
                await keeper.stop()
            if keeper.completes_nothing and self.embeds:
                self.embeds = False
                log.warning(
                    "engine_does_not_embed",
                    engine=str(self._program.path),
                    reason="of this build, embeddings exclude completions: use a newer one",
                )
            elif keeper.ready or not keeper.needs_port or not tries:
                return end
            else:
                self._chooses_port = False
                tries -= 1

    def _learn(self, ability: Ability) -> None:
        self.ability = ability


def binary_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of a llama-server: ours, without what would set it up otherwise."""
    return {
        name: value for name, value in child_environment(ours).items() if not _is_withheld(name)
    }


def withheld_variables(ours: Mapping[str, str]) -> tuple[str, ...]:
    """The names of variables that a llama-server would heed and does not get."""
    return tuple(sorted(name for name in ours if name.startswith("LLAMA_ARG_")))


def _is_withheld(name: str) -> bool:
    return name.startswith(_NOT_PASSED) or name in _NOT_PASSED_WHOLE


def _free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Keeper(ChildProcess):
    """A llama-server, and the process that keeps it.

    Attributes:
        needs_port: it cannot choose a port itself, or the one that it was given is taken.
        ability: what it was seen to be able to do; None: nothing was looked at.
    """

    needs_port = False
    ability: Ability | None = None
    _on_start: Callable[[int], None]
    _on_ready: Callable[[str], None]

    def set_up(
        self,
        settings: ChildSettings,
        on_start: Callable[[int], None],
        on_ready: Callable[[str], None],
        on_ability: Callable[[Ability], None],
    ) -> None:
        """What it runs, and who is told."""
        self._on_ability = on_ability
        self._settings = settings
        self._on_start = on_start
        self._on_ready = on_ready
        self._listens = trio.Event()
        self._url = ""
        self._binary: int | None = None
        self._code: int | None = None
        self._failed = ""

    async def follow(self) -> None:
        """Report its address as soon as it is healthy there."""
        await self._listens.wait()
        origin = Origin(BaseUrl.parse(self._url), self._settings.api_key)
        pause = _FIRST_PAUSE
        try:
            while True:
                with suppress(RequestError):
                    await origin.ask("GET", "/health", bytes, timeout=_HEALTH_TIMEOUT)
                    break
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            await origin.aclose()
        self.has_loaded()
        if self._settings.completions and not self._settings.rerank:
            self.refusals_expected = 1
            self.ability = await look(self._url, self._settings.api_key)
            if self.ability.schema_engine != GBNF:
                self.refusals_expected = 0
            self._on_ability(self.ability)
            if self.completes_nothing:
                self._kill()
                return
        self._on_ready(self._url)

    @property
    def completes_nothing(self) -> bool:
        """Whether it was to complete and to embed, and can only do the latter."""
        able = self.ability is None or self.ability.completes
        return not able and self._settings.embeddings

    def heard(self, line: str) -> None:
        """A line of its log: where it listens, or that it cannot."""
        if self._listens.is_set():
            return
        if found := _ADDRESS.search(line):
            port = int(found[1] or found[2])
            if not port:
                self.needs_port = True
                self._kill()
                return
            self._url = f"http://127.0.0.1:{port}"
            self._listens.set()
        elif _TAKEN.search(line):
            self.needs_port = True

    async def happened(self, event: dict[str, Any]) -> None:
        """An event that the keeper reports."""
        match event["event"]:
            case "started":
                self._binary = event["pid"]
                self._on_start(event["pid"])
                if self.needs_port:  # its line was read first
                    self._kill()
            case "ended":
                self._code = event["returncode"]
            case "failed":
                self._failed = event["message"]

    def ended(self, code: int) -> ChildEnd:
        """How the llama-server ended, which is of more interest than the keeper."""
        if self._failed:
            return ChildEnd(f"it cannot be started: {self._failed}", code, True, self.last_lines())
        if self._code is None:  # the keeper was killed: Linux then kills what it keeps
            return self.end_of(code)
        return self.end_of(self._code)

    async def stop(self) -> None:
        """End both, and what the llama-server has started."""
        await super().stop()
        if self._code is None:  # the keeper did not live to see its end
            self._kill()

    def _kill(self) -> None:
        if self._binary is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._binary, signal.SIGKILL)
