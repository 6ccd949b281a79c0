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
from pathlib import Path
from typing import Any

import structlog
import trio

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import RequestError
from llcuda_net.upstream.engine.binary.arguments import command_line
from llcuda_net.upstream.engine.process import (
    ChildEnd,
    ChildProcess,
    ChildSettings,
    Launch,
    child_environment,
)
from llcuda_net.upstream.engine.programs.program import Program
from llcuda_net.upstream.llama.transport.origin import Origin

log = structlog.get_logger(__name__)

_KEEPER = Path(__file__).with_name("keeper.py")
_PORTS = 5  # that are tried
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


def run_binary(program: Program) -> Launch:
    """What runs a llama-server, as `run_child` runs the built-in engine."""

    async def launch(
        settings: ChildSettings, on_start: Callable[[int], None], on_ready: Callable[[str], None]
    ) -> ChildEnd:
        port = 0
        for _ in range(_PORTS):
            keeper = await Keeper.start(_KEEPER, binary_environment(os.environ))
            keeper.set_up(settings, on_start, on_ready)
            try:
                end = await keeper.watch(
                    {
                        "command": command_line(program, settings, port),
                        "environment": {"LLAMA_API_KEY": settings.api_key},
                        "nice": settings.nice,
                    }
                )
            finally:
                await keeper.stop()
            if keeper.ready or not keeper.needs_port:
                break
            port = _free_port()
        return end

    return launch


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
    """

    needs_port = False
    _on_start: Callable[[int], None]
    _on_ready: Callable[[str], None]

    def set_up(
        self,
        settings: ChildSettings,
        on_start: Callable[[int], None],
        on_ready: Callable[[str], None],
    ) -> None:
        """What it runs, and who is told."""
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
        self.ready = True
        self._on_ready(self._url)

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
