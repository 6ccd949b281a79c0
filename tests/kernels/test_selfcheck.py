"""The checks that doctors and benchmarks run, on the CPU; and that they find mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_kernels import elementwise, selfcheck


@pytest.mark.parametrize("name", selfcheck.names())
def test_every_operation_passes_on_the_cpu(name: str) -> None:
    outcome = selfcheck.run(name, "cpu", seed=1)
    assert outcome.passed, outcome


def test_a_mistake_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "vector_add", lambda a, b, backend: a + b + np.float32(1e-3))
    outcome = selfcheck.run("vector_add", "cpu", seed=1)
    assert not outcome.passed
    assert "misses the reference" in outcome.reason


def test_an_error_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(a: object, b: object, backend: str) -> None:
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED: it did\nmore")

    monkeypatch.setattr(elementwise, "vector_add", broken)
    outcome = selfcheck.run("vector_add", "cpu", seed=1)
    assert (outcome.passed, outcome.reason) == (
        False,
        "RuntimeError: CUDA_ERROR_LAUNCH_FAILED: it did",
    )


def test_nan_and_infinity_never_pass_by_mistake() -> None:
    inf, nan = np.inf, np.nan
    assert selfcheck.miss_of([1.0, nan, inf], [1.0, nan, inf], 1e-6, 0) == 0
    for got, want in [
        ([nan], [1.0]),
        ([1.0], [nan]),
        ([inf], [1.0]),
        ([-inf], [inf]),
        ([0.0, 1], [0]),
    ]:
        assert not selfcheck.miss_of(got, want, 1e-6, 1e-9) <= 1
