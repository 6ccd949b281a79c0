"""One life of an engine's process, from its start to its end.

`run_child` runs the built-in engine: it starts `child.py`, reports when it is ready, collects what
it prints, and returns how it ended. However it is left, the process is gone and reaped afterwards.
What `child.py` and the keeper of a llama-server have in common is in `ChildProcess`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import structlog
import trio

from llcuda_net.upstream.engine.causes import (
    LAST_OF_A_FAILURE,
    find_abort,
    find_cause,
    is_error,
    may_be_kept,
    refused_constraint,
)

log = structlog.get_logger(__name__)

_CHILD = Path(__file__).with_name("child.py")
_STOP_SECONDS = 3.0  # what a child may take to end by itself before it is killed
_LAST_WORDS_SECONDS = 1.0
_MOST_LEFT = 10_000  # passes of the event loop in which what an ended child printed is read
_KEPT_LINES = 100
_SHOWN_LINES = 5
_MAX_LINE = 4096


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What an engine runs; `child.py` gets it on its standard input, and says what it does with it.

    Attributes:
        ctx: tokens for each slot.
        pooling: of embeddings, by llama.cpp's number, where the model's file names it.
        prompt_cache: MiB.
        nice: how far below others it computes; 0: as they do.
        completions, embeddings, rerank: what it is for.

    The others are as in `EngineOptions`.
    """

    model: str
    alias: str
    ctx: int
    slots: int
    threads: int | None
    gpu_layers: int | None
    pooling: int | None
    prompt_cache: int
    api_key: str
    nice: int = 0
    completions: bool = True
    embeddings: bool = True
    rerank: bool = False
    mmproj: str | None = None
    lora: tuple[tuple[str, float], ...] = ()
    draft: str | None = None
    draft_gpu_layers: int | None = None
    chat_template: str | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attn: str | None = None
    rope_scaling: str | None = None
    rope_scale: float | None = None
    rope_freq_base: float | None = None
    rope_freq_scale: float | None = None
    yarn_orig_ctx: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child ended.

    Attributes:
        why: the best explanation there is, on one line.
        returncode: as subprocess gives it: negative for a signal.
        unusable: the engine cannot run on this machine at all, whatever the model.
        last_lines: the end of what it printed.
    """

    why: str
    returncode: int
    unusable: bool = False
    last_lines: tuple[str, ...] = ()


#: Runs one child: `run_child`, what runs a llama-server, or what stands for them in tests.
Launch = Callable[
    [ChildSettings, Callable[[int], None], Callable[[str], None]], Awaitable[ChildEnd]
]


async def run_child(
    settings: ChildSettings, on_start: Callable[[int], None], on_ready: Callable[[str], None]
) -> ChildEnd:
    """Run one child until it ends; `on_start` gets its pid, `on_ready` its base URL.

    When cancelled, the child is stopped and reaped first.

    Raises:
        OSError: the process could not be started.
    """
    child = await BuiltinChild.start(_CHILD)
    child.on_ready = on_ready
    try:
        on_start(child.pid)
        return await child.watch(asdict(settings))
    finally:
        await child.stop()


def child_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Ours, without the variables that would make llama.cpp's server another program's child."""
    # On an assertion ggml attaches a debugger to itself, if there is one, for seconds.
    return {"GGML_NO_BACKTRACE": "1"} | {
        name: value for name, value in ours.items() if not name.startswith("LLAMA_SERVER_")
    }


class ChildProcess:
    """A process of one of our scripts, from its start until it has been reaped.

    The script gets one JSON object on its standard input, which stays open as long as it is to
    live. It reports events as lines of JSON on a pipe of its own; what it and its children print is
    taken for llama.cpp's log.

    Attributes:
        tail: the last lines of that.
        ready: whether it serves.
        refusals_expected: constraints that we ask for to see whether they are refused.
    """

    def __init__(self, process: trio.Process, status: trio.lowlevel.FdStream) -> None:
        self._process = process
        self._status = status
        self._why_printed = trio.Event()
        self.tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self.ready = False
        self.refusals_expected = 0

    @classmethod
    async def start(cls, script: Path, environment: dict[str, str] | None = None) -> Self:
        """Start a script, with an environment (None: ours).

        Raises:
            OSError: the process could not be started.
        """
        status_read, status_write = os.pipe()
        status = trio.lowlevel.FdStream(status_read)
        try:
            process = await trio.lowlevel.open_process(
                # By path with -P, not by -m: neither the working directory nor the packages on the
                # way to the module are imported from, and it need not be installed.
                [sys.executable, "-P", str(script), str(status_write)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(status_write,),
                start_new_session=True,  # Ctrl-C reaches a terminal's whole process group
                env=child_environment(os.environ) if environment is None else environment,
            )
        except BaseException:
            await trio.aclose_forcefully(status)
            raise
        finally:
            os.close(status_write)
        return cls(process, status)

    @property
    def pid(self) -> int:
        """Of the script's process."""
        return self._process.pid

    async def watch(self, payload: dict[str, Any]) -> ChildEnd:
        """Send it what it is to do, and follow it until it has ended."""
        async with trio.open_nursery() as tasks:
            all_read = trio.Event()
            tasks.start_soon(self._read_lines, all_read)
            tasks.start_soon(self._read_status)
            tasks.start_soon(self.follow)
            await self._send(payload)
            await self._process.wait()
            # All that it printed is in the pipe, which a process that it left behind could hold
            # open: so read until nothing is there, however long this machine takes.
            left = _MOST_LEFT
            while not all_read.is_set() and left and self._has_printed():
                left -= 1
                await trio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        code = self._process.returncode
        assert code is not None
        return self.ended(code)

    async def stop(self) -> None:
        """End the child: by closing its pipe, or else by force."""
        with trio.CancelScope(shield=True):
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            await self._process.stdin.aclose()
            with trio.move_on_after(_STOP_SECONDS):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            await self._process.stdout.aclose()
            await self._status.aclose()

    # -- what differs -------------------------------------------------------------------------

    async def follow(self) -> None:
        """Runs beside it, until it has ended."""

    def heard(self, line: str) -> None:
        """A line of its log."""

    async def happened(self, event: dict[str, Any]) -> None:
        """An event that it reports."""

    def ended(self, code: int) -> ChildEnd:
        """How it ended."""
        return self.end_of(code)

    # -- for those who differ -----------------------------------------------------------------

    def end_of(self, code: int) -> ChildEnd:
        """How a process of native code ended, by its status and its log."""
        # Once it serves, the errors in its log are those of single requests, not why it ended.
        aborted = find_abort(self.tail)
        cause = aborted or ("" if self.ready else find_cause(self.tail))
        why = f"{_ending(code)}: {cause}" if cause else _ending(code)
        if cause and code > 0 and not aborted:
            why = cause  # it says all: an exit after an error that it reports
        return ChildEnd(why, code, code == -signal.SIGILL and not self.ready, self.last_lines())

    def has_loaded(self) -> None:
        """It serves now. What it could not do is said: it may be what the user has asked for."""
        self.ready = True
        if failed := [line for line in self.tail if is_error(line)]:
            log.warning("engine_loaded_with_errors", lines=failed[:_SHOWN_LINES])

    def last_lines(self) -> tuple[str, ...]:
        """The end of what it printed."""
        return tuple(self.tail)[-_SHOWN_LINES:]

    async def kill_when_explained(self) -> None:
        """End it, once the reason of a failure is in its log: that is written by a thread."""
        with trio.move_on_after(_LAST_WORDS_SECONDS):
            await self._why_printed.wait()
        self._process.kill()

    async def _send(self, payload: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(trio.BrokenResourceError):  # it died before it read: its end says why
            await self._process.stdin.send_all(json.dumps(payload).encode() + b"\n")

    async def _read_lines(self, all_read: trio.Event) -> None:
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            if not may_be_kept(line, serving=self.ready):
                continue
            if refused := refused_constraint(line):
                line, why = refused
                if self.refusals_expected:
                    self.refusals_expected -= 1
                else:
                    log.warning("engine_refused_constraint", why=why)
            self.tail.append(line)
            if LAST_OF_A_FAILURE in line:
                self._why_printed.set()
            log.debug("engine_line", line=line)
            self.heard(line)
        self._why_printed.set()
        all_read.set()

    def _has_printed(self) -> bool:
        """Whether there is something to read, be it the end."""
        assert isinstance(self._process.stdout, trio.lowlevel.FdStream)
        return bool(select.select([self._process.stdout.fileno()], [], [], 0)[0])

    async def _read_status(self) -> None:
        async for line in _lines(self._status):
            await self.happened(json.loads(line))


class BuiltinChild(ChildProcess):
    """The built-in engine's process."""

    on_ready: Callable[[str], None]
    _failed: dict[str, Any] | None = None

    async def happened(self, event: dict[str, Any]) -> None:
        """It is ready, or it failed: then it waits to be killed."""
        if event["event"] == "ready":
            self.has_loaded()
            self.on_ready(event["url"])
            return
        self._failed = event
        await self.kill_when_explained()

    def ended(self, code: int) -> ChildEnd:
        """How it ended."""
        if self._failed is None:
            return self.end_of(code)
        why = self._failed["message"]
        if self._failed["kind"] != "load":
            return ChildEnd(why, code, self._failed["kind"] == "import", self.last_lines())
        return ChildEnd(find_cause(self.tail) or why, code, False, self.last_lines())


def _ending(code: int) -> str:
    if code >= 0:
        return f"the engine exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = {"SIGKILL": " (out of memory?)", "SIGILL": " (the CPU lacks an instruction)"}
    return f"the engine was ended by {name}{hint.get(name, '')}"


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    """The stream's lines, printable, cut where they are too long; ends with the stream."""
    rest = b""
    while True:
        try:
            data = await stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        *whole, rest = (rest + data).split(b"\n")
        if not data:
            whole = [rest] if rest else []
        elif len(rest) > _MAX_LINE:
            whole.append(rest)
            rest = b""
        for line in whole:
            text = line[:_MAX_LINE].decode("utf-8", "replace").strip()
            if text:
                yield "".join(c if c.isprintable() else " " for c in text)
        if not data:
            return
