"""Work on finished answers runs where its description says that it does."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_kernels import Gpu
from llcuda_net.batch import post_process


@pytest.mark.parametrize(("usable", "backend"), [(True, "cuda"), (False, "cpu")])
def test_it_runs_where_it_says(monkeypatch: pytest.MonkeyPatch, usable: bool, backend: str) -> None:
    ran: list[tuple[str, str]] = []

    def recorded(name: str) -> Any:
        return lambda array, rounds, *, backend="auto": ran.append((name, backend))

    device = Gpu(usable=usable, reason="" if usable else "none here", name="H200" * usable)
    monkeypatch.setattr(post_process, "gpu", lambda: device)
    for name in ("spin", "post"):
        monkeypatch.setattr(post_process, name, recorded(name))
    _, said = post_process.prepare(64, 5, True)
    assert ran == [("spin", backend), ("post", backend)]
    assert said == f"spin and post, 64 numbers, 5 rounds, on {'H200' if usable else 'the CPU'}"
