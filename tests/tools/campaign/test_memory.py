"""Memory that grows is noticed; what the store's pages take is allowed."""

from __future__ import annotations

import os
from pathlib import Path

from tools.campaign import memory


def looks(resident: list[int], store: int = 0) -> list[memory.Look]:
    """With a store that grows by so much with every look."""
    return [memory.Look(size, n * store) for n, size in enumerate(resident)]


def test_memory_that_grows_is_noticed() -> None:
    base = 60 << 20
    flat = [base + (n % 7 << 16) for n in range(400)]
    assert memory.growth(looks(flat)) is None
    # What is used in the beginning does not count, nor does one that is short.
    assert memory.growth(looks([10 << 20] * 90 + flat[:300])) is None
    grows = [base + n * (100 << 10) for n in range(400)]
    assert "has grown" in (memory.growth(looks(grows)) or "")
    assert memory.growth(looks(grows[: memory.FEWEST - 1])) is None
    # As much as the store grows by may be its pages, up to what is kept of them.
    assert memory.growth(looks(grows, 100 << 10)) is None
    assert "has grown" in (memory.growth(looks(grows, 10 << 10)) or "")
    assert "has grown" in (memory.growth(looks([4 * n << 20 for n in range(400)], 9 << 20)) or "")


def test_the_store_is_looked_at_without_the_journal(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    before = memory.look(os.getpid(), tmp_path).store
    (tmp_path / "journal" / "segment").write_bytes(b"x" * 100_000)
    assert memory.look(os.getpid(), tmp_path).store == before
    (tmp_path / "results.db").write_bytes(b"x" * 100_000)
    found = memory.look(os.getpid(), tmp_path)
    assert found.store >= before + 100_000
    assert found.resident > 1 << 20
