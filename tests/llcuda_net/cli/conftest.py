"""Fixtures of the tests of llcuda-client: a scripted server, and a clean environment."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.support.client.scripted_server import Scripted, listening


@pytest.fixture
def server() -> Scripted:
    return Scripted()


@pytest.fixture
def address(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scripted server, which LLCUDA_SERVER names."""
    with listening(server.serve) as port:
        monkeypatch.setenv("LLCUDA_SERVER", f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LLCUDA_SERVER", "LLCUDA_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def logs_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that runs in this process sets up the logs: undo it for the tests after it."""
    configure, root = structlog.configure, logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def uncached(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
