"""From what size on a GPU is quicker is what was measured, and every operation can be measured."""

from __future__ import annotations

import importlib
import math

import pytest

from llcuda_kernels.runtime import crossover, device


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a GPU; nothing runs on it."""
    monkeypatch.setattr(crossover, "gpu", lambda: device.Gpu(True))
    monkeypatch.setattr(crossover, "_thresholds", {})


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("cuda_cost", "expected"),
    [
        (lambda size: 1.0, crossover.SIZES[2]),  # the CPU takes 0.02, 0.17 and 1.3
        (lambda size: 0.05, crossover.SIZES[1]),
        (lambda size: 0.0, crossover.SIZES[0]),
        (lambda size: 9.0, math.inf),
    ],
)
def test_the_crossover_is_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, cuda_cost: object, expected: float
) -> None:
    now = 0.0

    def run(which: str, size: int) -> None:
        nonlocal now
        now += cuda_cost(size) if which == "cuda" else size * 1e-8 * 2  # type: ignore[operator]

    monkeypatch.setitem(crossover._probes, "relu", run)
    assert crossover.measure("relu", clock=lambda: now) == expected
    assert crossover.known() == {"relu": expected}
    for size in crossover.SIZES:
        assert crossover.cuda_is_faster("relu", size) == (size >= expected)
    assert not crossover.cuda_is_faster("relu", crossover.SMALL - 1)
    assert not crossover.cuda_is_faster("no such operation", 1 << 40)


for _module in ("elementwise", "embeddings", "norms", "products", "search", "tokens", "weights"):
    importlib.import_module(f"llcuda_kernels.{_module}")


@pytest.mark.parametrize("name", sorted(crossover._probes))
def test_every_probe_runs_on_the_cpu(name: str) -> None:
    crossover._probes[name]("cpu", crossover.SIZES[0])
