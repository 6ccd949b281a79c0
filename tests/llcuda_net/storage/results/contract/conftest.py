"""The stores that the contract is checked on. A new store adds its factory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.results.interface import Store
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.storage.postgres import Postgres

#: Opens the store of one test; True: to write.
Factory = Callable[[bool], Store]
STORES = ["sqlite", "postgres"]


@pytest.fixture(params=STORES)
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Factory]:
    """Opens stores of the same data; all are closed at the end."""
    opened: list[Store] = []
    url = ""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()

    def factory(write: bool) -> Store:
        store: Store
        store = PostgresStore(url, write=write) if url else SqliteStore(tmp_path, write=write)
        opened.append(store)
        return store

    yield factory
    for store in opened:
        store.close()


@pytest.fixture
def stores(factory: Factory) -> tuple[Store, Store]:
    """One that writes, and one that reads the same data."""
    return factory(True), factory(False)


@pytest.fixture
def store(factory: Factory) -> Store:
    """One that writes."""
    return factory(True)
