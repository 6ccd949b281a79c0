"""A small reserve: a simulated disk copies each file with each write."""

from __future__ import annotations

import pytest

from llcuda_net.storage.journal import reserve


@pytest.fixture(autouse=True)
def _small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "SIZE", 2048)
