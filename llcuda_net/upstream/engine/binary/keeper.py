"""The keeper of a llama-server: a small process between llcuda and a program that is not ours.

A llama-server knows nothing of a parent. So that it never outlives ours, however that ends, this
process stands between the two. Run by `llcuda_net.upstream.engine.binary.process`, never by hand:

- fd 0 is a pipe. Its first line is a JSON object: the command line, variables of the environment
  (the API key is one: a command line would show it to everyone) and how nice to be. Then it stays
  open and silent. At its end of file, the llama-server and all that it started are ended.
- The descriptor named by the one argument takes JSON lines: `{"event": "started", "pid": ...}`,
  then `{"event": "ended", "returncode": ...}`; or `{"event": "failed", "message": ...}`.
- fds 1 and 2 are the llama-server's; nothing is written to them here.

If this process is killed, Linux kills the llama-server (PR_SET_PDEATHSIG). That is bound to the
thread that started it, which is why llcuda, whose threads come and go, cannot ask for it itself,
and why this process has only one.

SIGINT and SIGTERM are ignored here, and the llama-server has a session of its own: what a terminal
or a service manager sends to all processes must not end it before the streams are finished.

This file imports nothing of llcuda, so that it starts fast and runs from any folder.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

_MAX_REQUEST = 1 << 20
_GRACE = 1.0  # seconds for the llama-server to end by itself
_LOOKS, _BETWEEN_LOOKS = 50, 0.01  # at whether what it has started has ended, too; seconds
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Start the program, and stay until it has ended or the parent has."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    status = int(sys.argv[1])
    os.set_inheritable(status, False)
    request = _read_request()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        process = _start(request)
    except OSError as error:
        _report(status, event="failed", message=error.strerror or str(error))
        sys.exit(2)
    except subprocess.SubprocessError as error:
        _report(status, event="failed", message=str(error))
        sys.exit(2)
    _report(status, event="started", pid=process.pid)
    while process.poll() is None:
        if 0 in select.select([0, woken], [], [])[0] and not os.read(0, 4096):
            _end(process)
        with suppress(BlockingIOError):
            os.read(woken, 4096)
    _clear_group(process.pid)
    _report(status, event="ended", returncode=process.returncode)


def _read_request() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data or len(line) > _MAX_REQUEST:
            sys.exit(0)
        line += data
    request: dict[str, Any] = json.loads(line)
    return request


def _start(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    libc = None
    if sys.platform == "linux":
        with suppress(ImportError, OSError):
            import ctypes

            libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        """In the new process, before it becomes the program; there is no other thread."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if request["nice"]:
            _yield_to_everybody(request["nice"])
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it was killed before that was armed
                os._exit(0)

    return subprocess.Popen(
        request["command"],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **request["environment"]},
        start_new_session=True,
        preexec_fn=prepare,
    )


def _yield_to_everybody(nice: int) -> None:
    """Compute only where nothing else would; Linux then interrupts it for anything at once."""
    os.nice(nice)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # forbidden in some containers
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and its children: first politely, since it may have files to write."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _kill_group(process.pid)
    process.wait()


def _clear_group(group: int) -> None:
    """End what the program has started and left behind; what only passes on its log may finish."""
    for _ in range(_LOOKS):
        try:
            os.killpg(group, 0)
        except OSError:
            return
        time.sleep(_BETWEEN_LOOKS)
    _kill_group(group)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _report(status: int, **event: object) -> None:
    with suppress(OSError):  # nobody is there to hear it
        os.write(status, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    main()
