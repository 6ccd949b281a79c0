"""One life of the engine's child process, from its start to its end.

`run_child` is all there is: it starts `child.py`, reports when it is ready, collects what it
prints, and returns how it ended. However it is left, the process is gone and reaped afterwards.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

log = structlog.get_logger(__name__)

_CHILD = Path(__file__).with_name("child.py")
_STOP_SECONDS = 3.0  # what a child may take to end by itself before it is killed
_LAST_WORDS_SECONDS = 1.0
_MOST_LEFT = 10_000  # passes of the event loop in which what an ended child printed is read
_KEPT_LINES = 100
_SHOWN_LINES = 5
_LAST_OF_A_FAILURE = "exiting due to"
_MAX_LINE = 4096


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What the child gets on its standard input; see `child.py` for what it does with it."""

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


#: Runs one child: `run_child`, or what stands for it in tests.
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
    status_read, status_write = os.pipe()
    status = trio.lowlevel.FdStream(status_read)
    try:
        process = await trio.lowlevel.open_process(
            # By path with -P, not by -m: neither the working directory nor the packages on the way
            # to the module are imported from, and it need not be installed.
            [sys.executable, "-P", str(_CHILD), str(status_write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(status_write,),
            start_new_session=True,  # Ctrl-C reaches a terminal's whole process group
            env=_environment(),
        )
    except BaseException:
        await trio.aclose_forcefully(status)
        raise
    finally:
        os.close(status_write)
    child = _Child(process, status)
    try:
        on_start(process.pid)
        return await child.watch(settings, on_ready)
    finally:
        await child.stop()


def _environment() -> dict[str, str]:
    """Ours, without the variables that would make llama.cpp's server another program's child."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_SERVER_")}
    # On an assertion ggml attaches a debugger to itself, if there is one, for seconds.
    return {"GGML_NO_BACKTRACE": "1"} | ours


class _Child:
    """A child process, from its start until it has been reaped."""

    def __init__(self, process: trio.Process, status: trio.lowlevel.FdStream) -> None:
        self._process = process
        self._status = status
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._failed: dict[str, Any] | None = None
        self._was_ready = False
        self._why_printed = trio.Event()

    async def watch(self, settings: ChildSettings, on_ready: Callable[[str], None]) -> ChildEnd:
        async with trio.open_nursery() as readers:
            all_read = trio.Event()
            readers.start_soon(self._read_lines, all_read)
            readers.start_soon(self._read_status, on_ready)
            await self._send(settings)
            await self._process.wait()
            # All that it printed is in the pipe, which a process that it left behind could hold
            # open: so read until nothing is there, however long this machine takes.
            left = _MOST_LEFT
            while not all_read.is_set() and left and self._has_printed():
                left -= 1
                await trio.lowlevel.checkpoint()
            readers.cancel_scope.cancel()
        return self._end()

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

    async def _send(self, settings: ChildSettings) -> None:
        assert self._process.stdin is not None
        with suppress(trio.BrokenResourceError):  # it died before it read: its end says why
            await self._process.stdin.send_all(json.dumps(asdict(settings)).encode() + b"\n")

    async def _read_lines(self, all_read: trio.Event) -> None:
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            if not _may_be_kept(line, self._was_ready):
                continue
            if refused := _REFUSED.match(line):
                line = refused[0]
                log.warning("engine_refused_constraint", why=refused[1])
            self._tail.append(line)
            if _LAST_OF_A_FAILURE in line:
                self._why_printed.set()
            log.debug("engine_line", line=line)
        self._why_printed.set()
        all_read.set()

    def _has_printed(self) -> bool:
        """Whether there is something to read, be it the end."""
        assert isinstance(self._process.stdout, trio.lowlevel.FdStream)
        return bool(select.select([self._process.stdout.fileno()], [], [], 0)[0])

    async def _read_status(self, on_ready: Callable[[str], None]) -> None:
        async for line in _lines(self._status):
            event = json.loads(line)
            if event["event"] == "ready":
                self._was_ready = True
                on_ready(event["url"])
                continue
            self._failed = event
            with trio.move_on_after(_LAST_WORDS_SECONDS):
                await self._why_printed.wait()
            self._process.kill()

    def _end(self) -> ChildEnd:
        code = self._process.returncode
        assert code is not None
        lines = tuple(self._tail)[-_SHOWN_LINES:]
        if self._failed is not None and self._failed["kind"] == "import":
            return ChildEnd(self._failed["message"], code, True, lines)
        if self._failed is not None:
            return ChildEnd(find_cause(self._tail) or self._failed["message"], code, False, lines)
        # Once it serves, the errors in its log are those of single requests, not why it ended.
        cause = find_abort(self._tail) or ("" if self._was_ready else find_cause(self._tail))
        why = f"{_ending(code)}: {cause}" if cause else _ending(code)
        return ChildEnd(why, code, code == -signal.SIGILL and not self._was_ready, lines)


def _ending(code: int) -> str:
    if code >= 0:
        return f"the engine exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = {"SIGKILL": " (out of memory?)", "SIGILL": " (the CPU lacks an instruction)"}
    return f"the engine was ended by {name}{hint.get(name, '')}"


#: What native code prints when it aborts.
_ABORT = re.compile(
    r"GGML_ASSERT\(|GGML_ABORT|terminate called after throwing|Fatal Python error: "
)
_STAMPED = re.compile(r"[\d.]+ [A-Z] ")


def _may_be_kept(line: str, serving: bool) -> bool:
    """Once it serves, what has no stamp may be a client's text: llama.cpp prints grammars raw."""
    return not serving or bool(_STAMPED.match(line) or _ABORT.search(line))


#: A grammar or schema that it does not take; behind these words it may quote what was asked.
_REFUSED = re.compile(
    r"[\d.]+ E (llg error|failed to parse grammar|grammar does not contain a 'root' symbol"
    r"|unsupported grammar)"
)
_STAMP = re.compile(r"^[\d.]+ E (?:(?:srv|cmn|slot) +[^:]*: |\w+: )")
_VAGUE = re.compile(
    r"failed to load model\b(?! from \S+: )|exiting due to|encountered an error while trying to fit"
)


def find_cause(lines: Iterable[str]) -> str:
    """The line of llama.cpp's log that says why a load failed, or an empty string.

    It reports one failure at every level that it passes, the first being the one that knows.
    """
    for line in lines:
        text, stamped = _STAMP.subn("", line)
        if stamped and not _VAGUE.search(text):
            return re.sub(r"^(?:error loading model(?: \w+)?: )+", "", text)
    return ""


def find_abort(lines: Iterable[str]) -> str:
    """The line that native code printed when it aborted, or an empty string."""
    return next((line for line in lines if _ABORT.search(line)), "")


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
