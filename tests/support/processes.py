"""Real servers on loopback for end-to-end tests: started on a free port, always stopped."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: The module of each command.
MODULES = {
    "batch": "llcuda_net.cli.batch.batch",
    "client": "llcuda_net.cli.client.command",
    "infer": "llcuda_net.cli.batch.infer",
    "main": "llcuda_net.cli.main",
    "mpi": "llcuda_net.cli.batch.mpi",
    "server": "llcuda_net.cli.server",
    "top": "llcuda_net.cli.top.command",
}
#: Generous, since the machine may be busy: a bound for hangs, not a measurement.
PATIENCE = 300.0
#: What a server gives up after seconds of real time; on a busy machine, not before the tests do.
_PATIENT = dict.fromkeys(
    (
        "LLCUDA_DISCONNECT_SECONDS",
        "LLCUDA_FAILOVER_SECONDS",
        "LLCUDA_FIRST_TOKEN_TIMEOUT",
        "LLCUDA_HANDSHAKE_TIMEOUT",
        "LLCUDA_STALL_TIMEOUT",
        "LLCUDA_WRITE_TIMEOUT",
    ),
    str(2 * PATIENCE),
)


@dataclass
class RunningServer:
    """A running llcuda-server."""

    process: subprocess.Popen[str]
    log_path: Path
    address: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait for its end, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def command(name: str, *arguments: str) -> list[str]:
    """The command line that runs one of our commands with this interpreter."""
    return [sys.executable, "-m", MODULES[name], *arguments]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of the user's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LLCUDA_")}
    quiet = {"NO_COLOR": "1", "LLCUDA_STORE": "none", "LLCUDA_ANALYSIS": "false"}
    return {**kept, **quiet, **extra}


@contextlib.contextmanager
def running_server(*arguments: str, **extra: str) -> Iterator[RunningServer]:
    """llcuda-server on a free port, ready; killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command("server", "--port", "0", *arguments),
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env=environment(
                    **_PATIENT,
                    **{"LLCUDA_STORE": "sqlite", "LLCUDA_DATA_DIR": f"{folder}/data", **extra},
                ),
                process_group=0,
            )
        server = RunningServer(process, log_path)
        try:
            assert process.stdout is not None
            line = read_line(process)
            assert line.startswith("listening on "), f"{line!r}\n{server.log()}"
            server.address = line.split()[-1]
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stdout is not None:
                process.stdout.close()


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line of a process's stdout; empty if there is none in time or it has ended."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    return process.stdout.readline().strip() if ready else ""


def run(name: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """One of our commands, to its end."""
    text_input = options.get("input")
    extra = options.get("env")
    return subprocess.run(
        command(name, *arguments),
        capture_output=True,
        text=True,
        input=str(text_input) if text_input is not None else "",
        env=environment(**(extra if isinstance(extra, dict) else {})),
        timeout=PATIENCE,
        check=False,
    )


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Look now and then until it is true; fails when it never is."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.02)


def children(pid: int) -> Sequence[int]:
    """Process ids whose parent is `pid`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry.name))
    return found
