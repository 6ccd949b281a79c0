"""Every CUDA kernel compiles, within its budget. No GPU is needed.

`budget.json` holds, for each kernel and architecture, the registers and the static shared memory
that it may take, and the instructions that it must contain; spills, float64 and local memory are
never allowed. ``python tests/kernels/cuda/test_compile.py`` writes it anew: read the difference.

`make test` compiles each kernel for one architecture, in turn; ``make test-all`` for all of them.
What the compilers said is kept between runs (`tests/support/kernels/compile_cache.py`) and checked
each time.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

from tests.support.kernels.compile_cache import CompileCache, folder, key  # noqa: E402
from tests.support.kernels.compiling import (  # noqa: E402
    ARCHITECTURES,
    NEWER,
    Output,
    compile_many,
    kernels,
    read,
)

BUDGET = Path(__file__).with_name("budget.json")
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="NVIDIA's compiler is for Linux"
)


def _matrix(everything: bool) -> list[tuple[str, tuple[int, int]]]:
    work = []
    for number, (name, kernel) in enumerate(sorted(kernels().items())):
        fitting = [cc for cc in ARCHITECTURES if kernel.runs_on(cc)]
        for cc in fitting if everything else [fitting[number % len(fitting)]]:
            work.append((name, cc))
    return work


def _build_all(work: list[tuple[str, tuple[int, int]]]) -> dict[str, dict[str, Any]]:
    """What each came to, or {"error": ...}; those that are not kept are compiled over the cores."""
    cache = CompileCache(folder())
    cache.forget_unused()
    outputs: dict[tuple[str, tuple[int, int]], Output | str | None] = {
        (name, cc): cache.get(key(kernels()[name], cc)) for name, cc in work
    }
    missing = [item for item, output in outputs.items() if output is None]
    if missing:
        cores = max(1, min(8, os.cpu_count() or 1))
        # Long ones are spread by dealing in turn.
        parts = [missing[i :: cores * 4] for i in range(cores * 4)]
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            for part, made in zip(parts, pool.map(compile_many, parts), strict=True):
                outputs.update(zip(part, made, strict=True))
    found: dict[str, dict[str, Any]] = {}
    for (name, cc), output in outputs.items():
        if isinstance(output, Output):
            if (name, cc) in missing:
                cache.put(key(kernels()[name], cc), output)
            found[f"{name} sm_{cc[0]}{cc[1]}"] = asdict(read(output))
        else:
            found[f"{name} sm_{cc[0]}{cc[1]}"] = {"error": output}
    return found


def _complaints(name: str, found: dict[str, Any], allowed: dict[str, Any] | None) -> list[str]:
    if "error" in found:
        return [f"{name} does not compile: {found['error']}"]
    if allowed is None:
        return [f"{name} has no budget: run python tests/kernels/cuda/test_compile.py"]
    said = [f"{name} has {kind}" for kind in found["forbidden"]]
    kernel = kernels().get(name.split()[0])
    if kernel and not 0 <= kernel.shared - found["shared"] < 64:
        said.append(f"{name} declares shared={kernel.shared}, and has {found['shared']} bytes")
    if found["spilled"]:
        said.append(f"{name} spills {found['spilled']} bytes")
    for kind in ("registers", "shared"):
        if found[kind] > allowed[kind]:
            said.append(f"{name}: {found[kind]} {kind}, {allowed[kind]} allowed")
    missing = set(allowed["instructions"]) - set(found["instructions"])
    return said + [f"{name} has no {kind}" for kind in sorted(missing)]


def _check(everything: bool) -> None:
    budget = json.loads(BUDGET.read_text())
    complaints = []
    for name, found in _build_all(_matrix(everything)).items():
        complaints += _complaints(name, found, budget.get(name))
    assert not complaints


def test_each_kernel_on_one_architecture() -> None:
    _check(everything=False)


@pytest.mark.slow
def test_each_kernel_on_every_architecture() -> None:
    _check(everything=True)


@pytest.mark.slow
def test_each_kernel_compiles_for_newer_architectures() -> None:
    """They have no budget: nothing was tuned on them."""
    work = [(name, cc) for cc in NEWER for name, kernel in kernels().items() if kernel.runs_on(cc)]
    complaints = []
    for name, found in _build_all(work).items():
        complaints += _complaints(name, found, {**found, "instructions": []})
    assert not complaints


def test_the_budget_names_no_kernel_that_is_not_there() -> None:
    there = {f"{name} sm_{cc[0]}{cc[1]}" for name, cc in _matrix(everything=True)}
    assert set(json.loads(BUDGET.read_text())) == there


def test_what_exceeds_its_budget_is_told() -> None:
    allowed = {"registers": 32, "shared": 0, "instructions": ["vector load"]}
    good = {"registers": 32, "shared": 0, "spilled": 0, "instructions": ["vector load", "fma"]}
    good["forbidden"] = []
    assert _complaints("k", good, allowed) == []
    assert _complaints("k", {**good, "registers": 33}, allowed)
    assert _complaints("k", {**good, "shared": 1}, allowed)
    assert _complaints("k", {**good, "spilled": 4}, allowed)
    assert _complaints("k", {**good, "instructions": []}, allowed)
    assert _complaints("k", {**good, "forbidden": ["float64"]}, allowed)
    assert _complaints("k", {"error": "no"}, allowed)
    # topk_int8 declares 2,064 bytes of shared memory
    assert _complaints("topk_int8 sm_90", {**good, "shared": 1900}, {**allowed, "shared": 4000})
    assert _complaints("k", good, None)


def main() -> int:
    """Write the budget as things are."""
    budget, failed = {}, []
    for name, found in sorted(_build_all(_matrix(everything=True)).items()):
        bad = _complaints(
            name, found, {**found, "instructions": []} if "error" not in found else None
        )
        failed += bad
        if "error" not in found:
            budget[name] = {kind: found[kind] for kind in ("registers", "shared", "instructions")}
    BUDGET.write_text(json.dumps(budget, indent=1) + "\n")
    print(*failed, sep="\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
