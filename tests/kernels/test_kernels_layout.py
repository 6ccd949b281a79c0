"""The packages of llcuda_kernels lie one above the other, and imports run down."""

from __future__ import annotations

import ast
import graphlib

from tests.support.kernels.import_graph import graph, modules

#: From the bottom up. A module imports the rows above its own in this list, and its own package;
#: the longest name that fits a module is its place, and "" is the package itself.
KERNELS_ORDER = [
    {"errors"},
    {"arrays"},
    {"reference"},
    {"cpu"},
    {"cuda.runtime"},
    {"cuda.primitives"},
    {"cuda"},
    {"runtime"},
    {
        "elementwise",
        "embeddings",
        "norms",
        "planes",
        "products",
        "synthetic_load",
        "tokens",
        "weights",
    },
    {"search", "sampling"},
    {"vectors"},
    {"several"},
    {"selfcheck"},
    {""},
]
MOST_MODULES = 12


def place(name: str) -> tuple[int, str]:
    """The row of a module, and the entry of the row that it belongs to."""
    parts = name.split(".") if name else []
    for length in range(len(parts), -1, -1):
        prefix = ".".join(parts[:length])
        for number, row in enumerate(KERNELS_ORDER):
            if prefix in row and (prefix or not name):
                return number, prefix
    raise AssertionError(f"{name} has no place: add it to KERNELS_ORDER")


def test_imports_run_down() -> None:
    wrong = []
    for name, targets in graph().items():
        row, entry = place(name)
        for target in targets:
            at, other = place(target)
            if at > row or (at == row and other != entry):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_there_is_no_circle() -> None:
    graphlib.TopologicalSorter(graph()).prepare()  # raises CycleError, which names the circle


def test_a_package_is_small_and_says_what_it_is_and_may_import() -> None:
    found = modules()
    for name, path in found.items():
        if path.name != "__init__.py":
            continue
        beside = [other for other in path.parent.glob("*.py") if other != path]
        assert len(beside) <= MOST_MODULES, name
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert "may import" in said, name


def test_every_row_names_what_is_there() -> None:
    assert {entry for row in KERNELS_ORDER for entry in row} <= set(modules())
