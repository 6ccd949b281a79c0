"""The databases that objects are kept in. What is tested with `db` or `emptied` holds for both."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from llcuda_net.storage.objects.interface import Database
from tests.support.storage.objects import Emptied, emptied_postgres, emptied_sqlite, made
from tests.support.storage.postgres import Postgres


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def emptied(request: pytest.FixtureRequest) -> Emptied:
    """Gives empty databases of one kind, one after the other."""
    if request.param == "sqlite":
        return emptied_sqlite
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database()
    made(url)
    return partial(emptied_postgres, url)


@pytest.fixture
def db(emptied: Emptied) -> Iterator[Database]:
    """An empty database."""
    with emptied() as found:
        yield found
