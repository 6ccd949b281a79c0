"""Loads that can never succeed, and what follows one that failed."""

from __future__ import annotations

from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.loads import backoff, need_after_no_memory, refusal
from llcuda_net.models.serving.state import ModelState

GIB = 1 << 30


def test_a_model_larger_than_the_whole_budget_is_refused_with_the_remedy() -> None:
    model = ModelState("a", need=Need(host=GIB, gpu=9 * GIB))
    assert refusal(model, [model], Budget(gpu=9 * GIB)) is None
    assert refusal(model, [model], Budget()) is None
    assert refusal(model, [model], Budget(gpu=8 * GIB)) == (
        "model a needs 9.0 GiB of GPU memory, and all models together may use 8.0 GiB: "
        "use a smaller context or quantisation, or a larger --gpu-memory"
    )
    found = refusal(model, [model], Budget(host=GIB // 2))
    assert found is not None
    assert found.startswith(
        "model a needs 1.0 GiB of memory, and all models together may use 512.0 MiB"
    )
    assert found.endswith("or a larger --memory")


def test_a_model_that_has_no_room_beside_the_pinned_ones_is_refused() -> None:
    pinned = ModelState("p", need=Need(gpu=6 * GIB), pinned=True)
    model = ModelState("a", need=Need(gpu=3 * GIB))
    assert refusal(model, [pinned, model], Budget(gpu=9 * GIB)) is None
    assert refusal(model, [pinned, model], Budget(gpu=8 * GIB)) == (
        "model a needs 3.0 GiB of GPU memory, and beside the pinned p there is 2.0 GiB: pin fewer "
        "models, or use a larger --gpu-memory"
    )
    on_host = ModelState("h", need=Need(host=GIB))
    assert refusal(on_host, [pinned, on_host], Budget(host=GIB, gpu=1)) is None


def test_the_pause_after_failed_loads_grows_and_is_bounded() -> None:
    pauses = [backoff(failures) for failures in range(1, 50)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (2.0, 300.0)


def test_after_too_little_memory_more_room_is_made_a_few_times() -> None:
    need = Need(host=8, gpu=80)
    assert need_after_no_memory(need, None, 1) == Need(host=10, gpu=100)
    assert need_after_no_memory(need, Need(gpu=90), 2) == Need(host=8, gpu=90)
    # What was asked for was there: it is not said again.
    assert need_after_no_memory(need, Need(gpu=80), 2) == Need(host=10, gpu=100)
    assert need_after_no_memory(need, None, 3) is None
