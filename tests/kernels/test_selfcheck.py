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


def test_the_worst_error_comes_with_what_was_allowed_for_it() -> None:
    """By the definition, in a loop; the greatest share need not be the greatest error."""
    rng = np.random.default_rng(3)
    want = rng.standard_normal(50) * 10.0 ** rng.integers(-3, 4, 50)
    got = want + rng.standard_normal(50) * 1e-4
    allowed = [1e-5 + 1e-3 * abs(w) for w in want]
    shares = [abs(g - w) / a for g, w, a in zip(got, want, allowed, strict=True)]
    worst = int(np.argmax(shares))
    miss = selfcheck.miss_of(got, want, 1e-3, 1e-5)
    assert isinstance(miss, selfcheck.Miss)
    assert miss == pytest.approx(shares[worst])
    assert miss.error == pytest.approx(abs(got[worst] - want[worst]))
    assert miss.allowed == pytest.approx(allowed[worst])


def test_an_outcome_has_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "vector_add", lambda a, b, backend: a + b + np.float32(1e-3))
    outcome = selfcheck.run("vector_add", "cpu", seed=1)
    assert outcome.error == pytest.approx(1e-3, rel=0.1)
    assert outcome.error is not None
    assert outcome.allowed is not None
    assert outcome.miss == pytest.approx(outcome.error / outcome.allowed)
