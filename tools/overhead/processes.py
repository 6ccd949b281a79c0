"""Child processes that always end, and their costs: CPU, wake-ups and peak memory."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from .usage import Usage

ROOT = Path(__file__).resolve().parents[2]
#: Seconds for a process to start listening, and to end on SIGTERM.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 5.0
#: Seconds for LiteLLM, which imports a lot.
SLOW_START = 180.0

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream synthetic {{ server {upstream}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://synthetic;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 3600s;
        }}
    }}
}}
"""


_LITELLM = """\
model_list:
  - model_name: any
    litellm_params:
      model: openai/any
      api_base: http://{upstream}/v1
      api_key: none
"""
#: What to do where LiteLLM is not there. It pins many packages: an environment of its own.
LITELLM_INSTALL = (
    "LiteLLM is not installed; for --peer litellm: python -m venv .venv-litellm && "
    ".venv-litellm/bin/python -m pip install 'litellm[proxy]', or name its program in LITELLM"
)


NGINX_INSTALL = "nginx is not installed (Debian: apt-get install nginx-light)"


class StartError(Exception):
    """A process did not start; the message quotes its log."""


@contextmanager
def _signals_held() -> Iterator[None]:
    """Delay SIGINT and SIGTERM to the end of the block, when the new process is known."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda n, _: came.append(n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


@contextmanager
def pinned(cores: Set[int] | None) -> Iterator[None]:
    """This thread runs on these cores within the block; what it starts does so for good."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """A process in a session of its own: Ctrl-C reaches only us, and we end it.

    Use as a context manager. `address` is (host, port) once it listens; `cores` are those that it
    may run on (None: all that we may).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        patience: float = START_TIMEOUT,
        cores: Set[int] | None = None,
    ) -> None:
        self.name = name
        self._cores = cores
        self._environment = None if environment is None else {**os.environ, **environment}
        self._patience = patience
        self.address: tuple[str, int] = ("127.0.0.1", port or 0)
        self._folder = tempfile.TemporaryDirectory(prefix="llcuda-bench-")
        self.folder = Path(self._folder.name)
        self._command = [part.replace("{folder}", str(self.folder)) for part in command]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        atexit.register(self._end)  # for a signal that comes before the caller's block has begun
        try:
            with (
                (self.folder / "out").open("wb") as out,
                (self.folder / "err").open("wb") as err,
                _signals_held(),
                pinned(self._cores),
            ):
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=self.folder,
                    env=self._environment,
                    start_new_session=True,
                )
            self._wait()
        except OSError as error:
            self._end()
            raise StartError(f"{self.name}: {error}") from None
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _wait(self) -> None:
        """Wait until it prints "listening on HOST:PORT" or, on a given port, accepts."""
        assert self._process is not None
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.address[1]:
                try:
                    socket.create_connection(self.address, timeout=1).close()
                except OSError:
                    pass
                else:
                    return
            first, newline, _ = (self.folder / "out").read_text("utf-8").partition("\n")
            if newline and first.startswith("listening on "):
                host, _, port = first.split()[-1].rpartition(":")
                self.address = (host, int(port))
                return
            time.sleep(0.02)
        raise StartError(f"{self.name} did not start: {self.said() or 'it said nothing'}")

    def _end(self) -> None:
        atexit.unregister(self._end)
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._folder.cleanup()

    def said(self) -> str:
        """The last lines of its stderr."""
        text = (self.folder / "err").read_text("utf-8", "replace")
        return "\n".join(line[:500] for line in text.strip().splitlines()[-3:])

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def usage(self) -> Usage:
        """The usage of the process and its children so far."""
        return Usage.of(self.pid)


def synthetic_upstream(*options: str, cores: Set[int] | None = None) -> Child:
    """The synthetic upstream."""
    command = [sys.executable, str(ROOT / "tools" / "synthetic_upstream.py"), "--keepalive", "0"]
    return Child("the synthetic upstream", [*command, *options], cores=cores)


def llcuda_server(
    command: str,
    upstream: tuple[str, int],
    durability: str = "disk",
    *,
    store: str | None = None,
    cores: Set[int] | None = None,
) -> Child:
    """llcuda-server in front of an upstream, at a durability level.

    It analyses no results: that is idle time's work, and its processes come and go.

    Args:
        store: the URL of a PostgreSQL; None: its results are in its folder.
    """
    url = f"http://{upstream[0]}:{upstream[1]}"
    keep = ["--data-dir", "{folder}/data", "--durability", durability]
    keep.append("--no-analysis")
    if store is not None:
        keep += ["--store", store]
    command_line = [command, "--port", "0", "--upstream", url, *keep]
    return Child("llcuda-server", command_line, cores=cores)


def nginx(upstream: tuple[str, int], *, cores: Set[int] | None = None) -> Child:
    """nginx in front of an upstream: one worker, no buffering, connections kept alive."""
    port = _free_port()
    path = nginx_path()
    if path is None:
        raise StartError(NGINX_INSTALL)
    child = Child("nginx", [path, "-p", "{folder}", "-c", "{folder}/nginx.conf"], port, cores=cores)
    configuration = _NGINX.format(
        folder=child.folder,
        port=port,
        upstream=f"{upstream[0]}:{upstream[1]}",
        user="user root;" if os.geteuid() == 0 else "",
    )
    (child.folder / "nginx.conf").write_text(configuration, "utf-8")
    return child


def litellm(server: tuple[str, int], *, cores: Set[int] | None = None) -> Child:
    """LiteLLM's proxy, one worker, in front of an llcuda-server; it fetches no list of prices."""
    path = litellm_path()
    if path is None:
        raise StartError(LITELLM_INSTALL)
    port = _free_port()
    child = Child(
        "litellm",
        [
            *(path, "--config", "{folder}/litellm.yaml", "--host", "127.0.0.1"),
            *("--port", str(port), "--keepalive_timeout", "600"),
        ],
        port,
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # loopback only
            "LITELLM_LOG": "ERROR",
        },
        patience=SLOW_START,
        cores=cores,
    )
    configuration = _LITELLM.format(upstream=f"{server[0]}:{server[1]}")
    (child.folder / "litellm.yaml").write_text(configuration, "utf-8")
    return child


def litellm_path() -> str | None:
    """The program of LiteLLM: $LITELLM, that of .venv-litellm, or the one in PATH."""
    beside = ROOT / ".venv-litellm" / "bin" / "litellm"
    return os.environ.get("LITELLM") or (
        str(beside) if beside.exists() else shutil.which("litellm")
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def nginx_path() -> str | None:
    """The path of nginx; Debian keeps it outside an ordinary user's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
