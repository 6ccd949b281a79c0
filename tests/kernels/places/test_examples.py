"""Every example in a docstring and in the kernels' README runs; those that need a GPU, on one."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import llcuda_kernels as k

ROOT = Path(__file__).resolve().parents[3]
KERNELS = ROOT / "kernels" / "llcuda_kernels"
NAMES = {name: getattr(k, name) for name in k.__all__} | {"np": np}
NEED_A_GPU = ("to_device", "StreamManager(", "MemoryPool(", "capture(")


def _examples() -> list[doctest.DocTest]:
    """Those of all modules; cuda's own have none that can be imported everywhere."""
    found = []
    for path in sorted(KERNELS.rglob("*.py")):
        if ">>>" not in path.read_text(encoding="utf-8"):
            continue
        module = ".".join(path.relative_to(KERNELS.parent).with_suffix("").parts)
        finder = doctest.DocTestFinder()
        module = module.removesuffix(".__init__")
        found += finder.find(importlib.import_module(module), extraglobs=NAMES)
    return [test for test in found if test.examples]


def _needs_a_gpu(example: doctest.DocTest) -> bool:
    source = "".join(part.source for part in example.examples)
    return any(word in source for word in NEED_A_GPU)


EXAMPLES = _examples()


def test_there_are_examples() -> None:
    assert {test.name for test in EXAMPLES} >= {
        "llcuda_kernels",
        "llcuda_kernels.runtime.graphs",
        "llcuda_kernels.runtime.streams",
        "llcuda_kernels.runtime.memory",
    }


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(each, id=each.name, marks=[pytest.mark.gpu] * _needs_a_gpu(each))
        for each in EXAMPLES
    ],
)
def test_an_example_does_what_it_says(example: doctest.DocTest) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(example, out=said.append)
    assert tried
    assert not failed, "".join(said)


def test_no_example_is_left_unmarked() -> None:
    """Code in a docstring is written as an example, so that it is run."""
    unmarked = re.compile(r"::\n\n(?: {4})+(?:\w+ = |with |for |import |from )")
    for path in KERNELS.rglob("*.py"):
        assert not unmarked.search(path.read_text(encoding="utf-8")), path


def test_the_readme() -> None:
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "kernels/README.md").read_text("utf-8"), re.S
    )
    assert blocks
    for block in blocks:
        exec(compile(block, "kernels/README.md", "exec"), {})
