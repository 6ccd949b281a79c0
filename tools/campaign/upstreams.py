"""An upstream as a process on its own port: it can be killed, stopped, made to fail, and healed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from tools.campaign.server import PATIENCE, environment, free_port
from tools.overhead.processes import ROOT, StartError

SYNTHETIC = ROOT / "tools" / "synthetic_upstream.py"
REAL = ROOT / "tools" / "chaos" / "real_engine.py"
#: Seconds for an upstream to answer a check, on a machine that the campaign keeps busy.
_ANSWER = 30.0
#: Seconds that a slowed upstream runs at a stretch.
_AWAKE = 0.01


class Upstream:
    """An upstream that can be harmed and healed any number of times.

    Args:
        name: its name in messages.
        script: SYNTHETIC or REAL.
        options: of its command line.
        folder: for its log.

    Attributes:
        trouble: its present trouble; "" for none.
        well_since: when the last trouble ended.
    """

    def __init__(self, name: str, script: Path, options: Sequence[str], folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.synthetic = script == SYNTHETIC
        self.trouble = ""
        self.well_since = 0.0
        self._command = [sys.executable, str(script), "--port", str(self.port), *options]
        self._log = folder / f"{name}.log"
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start it; returns when it listens.

        Raises:
            StartError: it does not.
        """
        with self._log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.PIPE,  # it ends when we do, however that is
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
                start_new_session=True,  # Ctrl-C reaches only us, and we end it
            )
        stdout = self._process.stdout
        assert stdout is not None
        line = b""
        with trio.move_on_after(PATIENCE):
            while not line.endswith(b"\n") and (data := await stdout.receive_some(4096)):
                line += data
        if not line.startswith(b"listening on "):
            raise StartError(f"{self.name} did not start: {self._said()}")

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    def _said(self) -> str:
        """The last lines of its log."""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        return " / ".join(lines) or "it said nothing"

    def check(self) -> None:
        """Check that it has not ended by itself.

        Raises:
            StartError: it has.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise StartError(f"{self.name} has ended by itself, with {code}: {self._said()}")

    # -- troubles -----------------------------------------------------------------------------

    async def harm(self, kind: str, how: str) -> None:
        """Begin a trouble: "kill", "stop", or "errors" with the fault that `how` names.

        Raises:
            StartError: it had ended by itself.
        """
        self.check()
        self.trouble = kind
        if kind == "kill":
            await self.end()
        elif kind == "stop":
            self._signal(signal.SIGSTOP)
        else:
            await self._fault(how)

    async def heal(self) -> None:
        """End its trouble.

        Raises:
            StartError: it was killed, and does not start again, or has ended by itself.
        """
        self.check()
        if self.trouble == "kill":
            await self.start()
        elif self.trouble == "stop":
            self._signal(signal.SIGCONT)
        elif self.trouble:
            await self._fault(None)
        self.trouble = ""
        self.well_since = trio.current_time()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def pause(self, paused: bool) -> None:
        """Stop or continue it, unless it is in trouble."""
        if self._process is not None and not self.trouble:
            self._signal(signal.SIGSTOP if paused else signal.SIGCONT)

    async def _fault(self, fault: str | None) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            (await client.post(f"{self.url}/synthetic", json={"fault": fault})).raise_for_status()

    async def end(self) -> None:
        """kill -9, stopped or not; returns when it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()

    # -- what it says -------------------------------------------------------------------------

    async def slots(self) -> list[dict[str, Any]]:
        """GET /slots."""
        found: list[dict[str, Any]] = await self._get("/slots")
        return found

    async def busy(self) -> int:
        """The number of its busy slots."""
        return sum(bool(slot["is_processing"]) for slot in await self.slots())

    async def _get(self, path: str) -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWER) as client:
            reply = await client.get(self.url + path)
            return reply.raise_for_status().json()


async def slow_down(upstream: Upstream) -> None:
    """Let it run for a tenth of the time only, until cancelled.

    The demonstration model answers in milliseconds: otherwise few answers would be under way when
    something happens.
    """
    try:
        while True:
            await trio.sleep(_AWAKE)
            upstream.pause(True)
            await trio.sleep(9 * _AWAKE)
            upstream.pause(False)
    finally:
        upstream.pause(False)


@asynccontextmanager
async def running(
    count: int, script: Path, options: Sequence[str], folder: Path
) -> AsyncIterator[list[Upstream]]:
    """Start upstreams that do not outlive the block.

    Raises:
        StartError: one of them did not start.
    """
    async with AsyncExitStack() as stack:
        out = []
        for n in range(count):
            out.append(Upstream(f"upstream-{n + 1}", script, options, folder))
            stack.push_async_callback(out[-1].end)
            await out[-1].start()
        yield out
