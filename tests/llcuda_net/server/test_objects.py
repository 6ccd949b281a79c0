"""Objects for requests: nothing is kept, or the storage refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.errors import Damaged, StorageUnavailable, Unsupported
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects.database import Objects


async def test_where_nothing_is_kept_the_error_says_what_to_do() -> None:
    kept = KeptObjects(None)
    assert not kept.keeps
    with pytest.raises(Unsupported, match="--data-dir"):
        await kept.read(lambda db: None)
    with pytest.raises(Unsupported, match="--data-dir"):
        await kept.write(lambda db: None)


async def test_errors_of_the_storage_are_those_of_requests(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    kept = KeptObjects(objects)
    assert kept.keeps
    with pytest.raises(StorageUnavailable, match="closed"):
        await kept.read(lambda db: None)
    await objects.open()
    count = "SELECT count(*) FROM files"
    assert await kept.write(lambda db: db.value(count)) == 0
    assert await kept.read(lambda db: db.value(count)) == 0
    with pytest.raises(Damaged, match="no such table"):
        await kept.read(lambda db: db.value("SELECT * FROM absent"))
    await objects.aclose()
