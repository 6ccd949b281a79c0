"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.processes import RunningServer, running_server


@pytest.fixture(scope="session")
def demo_server() -> Iterator[RunningServer]:
    """A real llcuda-server with the built-in engine and model, shared by all tests."""
    with running_server("--log-level", "debug") as server:
        yield server
