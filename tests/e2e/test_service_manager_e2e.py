"""A real server under something that behaves as systemd does: it listens, passes, and waits."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import llcuda_net.sync
from tests.support.processes import (
    PATIENCE,
    RunningServer,
    children,
    command,
    environment,
    wait_until,
)

#: Makes its descriptors those from 3 on, says which process they are for, and becomes the server.
_LAUNCHER = """
import os, sys
count = int(sys.argv[1])
given = [os.dup(int(one)) for one in sys.argv[2:2 + count]]  # none of those that it replaces
for place, one in enumerate(given):
    os.dup2(one, 3 + place)
    os.set_inheritable(3 + place, True)  # as it is not where the two are the same
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count:]])
"""


class Told:
    """What a server tells its service manager."""

    def __init__(self, address: Path) -> None:
        self.address = str(address)
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(PATIENCE)

    def until(self, line: str, behind: int = 0) -> int:
        """Wait for a line; its place. Those before `behind` do not count."""
        while True:
            for place in range(behind, len(self.lines)):
                if self.lines[place].startswith(line):
                    return place
            try:
                self.lines += self._socket.recv(4096).decode().split("\n")
            except TimeoutError:
                pytest.fail(f"{line} was never told, but {self.lines}")

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """What listens at NOTIFY_SOCKET."""
    listening = Told(tmp_path / "notify")
    yield listening
    listening.close()


@contextlib.contextmanager
def started(
    folder: Path,
    *arguments: str,
    passed: list[socket.socket] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """A server with these settings, which may not serve yet."""
    log_path = folder / "log"
    words = command("server", *arguments)
    numbers = [str(one.fileno()) for one in passed or []]
    if passed is not None:
        words = [sys.executable, "-c", _LAUNCHER, str(len(numbers)), *numbers, *words[1:]]
    settings = environment(
        LLCUDA_STORE="sqlite", LLCUDA_DATA_DIR=str(folder / "data"), **(variables or {})
    )
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
            env=settings,
            pass_fds=[int(one) for one in numbers],
            process_group=0,
        )
    try:
        yield RunningServer(process, log_path)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ask(address: str) -> str:
    """An answer of the server, which may still start."""
    with llcuda_net.sync.connect(address, reconnect=PATIENCE) as client:
        return client.complete("What is a slot?", n_predict=8, temperature=0).text


def test_a_whole_life_is_told(tmp_path: Path, told: Told) -> None:
    watched = {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": "300000"}
    with started(tmp_path, "--port", "0", variables=watched) as server:
        ready = told.until("READY=1")
        assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in told.lines[:ready])
        assert server.process.stdout is not None
        assert server.process.stdout.readline().startswith("listening on ")  # before it
        serving = told.until("STATUS=serving: 0 running, 0 waiting")
        assert serving == ready + 1  # at once, and not at the next look
        beat = told.until("WATCHDOG=1", serving)
        told.until("WATCHDOG=1", beat + 1)
        server.process.send_signal(signal.SIGHUP)
        reloading = told.until("RELOADING=1", ready)
        assert told.lines[reloading + 1].startswith("MONOTONIC_USEC=")
        told.until("READY=1", reloading)
        server.process.send_signal(signal.SIGTERM)
        stopping = told.until("STOPPING=1")
        assert told.lines[stopping + 1] == "EXTEND_TIMEOUT_USEC=45000000"
        assert server.process.wait(PATIENCE) == 0
        assert "service_manager_not_told" not in server.log()


def test_the_status_says_why_nothing_is_served(tmp_path: Path, told: Told) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    options = ("--port", "0", "--upstream", nobody)
    with started(tmp_path, *options, variables={"NOTIFY_SOCKET": told.address}) as server:
        told.until("READY=1")  # it answers, and says so
        told.until("STATUS=no upstream answers: ")
        assert server.stop() == 0


def test_the_engine_cannot_answer_in_the_servers_name(tmp_path: Path, told: Told) -> None:
    variables = {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": "60000000"}
    with started(tmp_path, "--port", "0", variables=variables) as server:
        told.until("READY=1")
        below = children(server.process.pid)
        assert below
        for pid in below:
            there = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in there
            assert b"WATCHDOG_USEC" not in there
        assert server.stop() == 0


def test_several_processes_are_told_as_one(tmp_path: Path, told: Told) -> None:
    options = ("--port", "0", "--processes", "2")
    watched = {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": "300000"}
    with started(tmp_path, *options, variables=watched) as server:
        ready = told.until("READY=1")
        told.until("STATUS=2 of 2 processes serve", ready)
        told.until("WATCHDOG=1", ready)
        server.process.send_signal(signal.SIGTERM)
        told.until("STOPPING=1", ready)
        assert server.process.wait(PATIENCE) == 0
        assert told.lines.count("READY=1") == 1


def test_clients_wait_at_a_passed_socket_over_starts(tmp_path: Path) -> None:
    """The socket is there before the server and between two of them, and no client is refused."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_server(("127.0.0.1", 0)) as monitoring,
    ):
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        names = {"LISTEN_FDNAMES": "llcuda.socket:metrics"}
        early = socket.create_connection(listening.getsockname())
        with started(tmp_path, passed=[listening, monitoring], variables=names) as server:
            first = ask(address)
            early.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert early.recv(12) == b"HTTP/1.1 200"
            url = f"http://127.0.0.1:{monitoring.getsockname()[1]}/metrics"
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                assert b"llcuda_ready 1.0" in answer.read()
            assert server.stop() == 0
        early.close()
        between = socket.create_connection(listening.getsockname())  # nobody is there
        with started(tmp_path, passed=[listening], variables=names) as server:
            between.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert between.recv(9) == b"HTTP/1.1 "
            assert ask(address) == first
            assert server.stop() == 0
        between.close()


def test_a_passed_socket_beyond_loopback_needs_tokens(tmp_path: Path) -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as listening,
        started(tmp_path, passed=[listening]) as server,
    ):
        assert server.process.wait(PATIENCE) == 2
        assert "listening on 0.0.0.0 would let anybody in" in server.log()


def test_what_is_passed_must_be_of_use(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        started(tmp_path, "--processes", "2", passed=[listening]) as server,
    ):
        assert server.process.wait(PATIENCE) == 2
        assert "leave the .socket unit out" in server.log()
    ours, theirs = socket.socketpair()
    with ours, theirs, started(tmp_path, passed=[ours]) as server:
        assert server.process.wait(PATIENCE) == 2
        assert "Accept=no in the .socket unit" in server.log()
        assert "Traceback" not in server.log()


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="of systemd, which is not installed"
)
def test_systemd_itself_passes_a_socket(tmp_path: Path) -> None:
    """The tests above play its part; here it is the real one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["systemd-socket-activate", "--listen", address, "--fdname", "llcuda.socket"]
    settings = environment(LLCUDA_STORE="sqlite", LLCUDA_DATA_DIR=str(tmp_path / "data"))
    for name, value in settings.items():
        if name.startswith(("LLCUDA_", "PYTHON", "HOME", "PATH")):  # it passes few by itself
            words += ["--setenv", f"{name}={value}"]
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*words, *command("server")], stdout=log, stderr=log, env=settings, process_group=0
        )
    try:
        wait_until(lambda: _accepts(address), "systemd-socket-activate listens")
        assert ask(address)
        process.terminate()  # it has become the server
        assert process.wait(PATIENCE) == 0
        said = log_path.read_text("utf-8")
        assert "listening_on_passed_sockets" in said
        assert f"listening on {address}" in said
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    time.sleep(0.05)
    return False
