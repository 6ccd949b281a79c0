"""The packages of llcuda_kernels lie one above the other, and imports run down."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "llcuda_kernels"
FOLDER = Path(__file__).resolve().parents[2] / "kernels" / PACKAGE

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
    {"elementwise", "embeddings", "norms", "products", "synthetic_load", "tokens", "weights"},
    {"search"},
    {"vectors"},
    {"selfcheck"},
    {""},
]
MOST_MODULES = 12


def modules() -> dict[str, Path]:
    """Every module by its name within the package."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that one imports: at its top, within functions and for typing."""
    own = [PACKAGE, *(name.split(".") if name else [])]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = own[: len(own) - node.level + (path.name == "__init__.py")] + base
            targets = [".".join([*base, alias.name]) for alias in node.names]
        for target in targets:
            if target.split(".")[0] == PACKAGE:
                parts = target.split(".")[1:]
                while ".".join(parts) not in known:
                    parts.pop()
                yield ".".join(parts)


def graph() -> dict[str, set[str]]:
    """What each module imports."""
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


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
