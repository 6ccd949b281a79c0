"""Which module of llcuda_kernels imports which, read from the source."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "llcuda_kernels"
FOLDER = Path(__file__).resolve().parents[3] / "kernels" / PACKAGE


@functools.cache
def modules() -> dict[str, Path]:
    """Every module by its name within the package; "" is the package itself."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def _imports(name: str, path: Path) -> Iterator[str]:
    known = modules()
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


@functools.cache
def graph() -> dict[str, frozenset[str]]:
    """What each module imports: at its top, within functions and for typing."""
    return {name: frozenset(_imports(name, path)) - {name} for name, path in modules().items()}


def reached(name: str) -> set[str]:
    """A module and all that it imports, directly or not."""
    found, waiting = set(), [name]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += graph()[here]
    return found
