"""A clock for tests that count what a server does."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.support.server import scripted_server


@pytest.fixture
def still_clock() -> MockClock:
    """Nothing is due by time alone; see scripted_server.py."""
    return scripted_server.still_clock()
