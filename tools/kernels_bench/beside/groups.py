"""The groups by name. What needs a GPU is imported when one of them runs."""

from __future__ import annotations

import importlib

from tools.kernels_bench.beside.work import Group

#: Module and function of each.
GROUPS = {
    "store": "search.store",
    "search int8": "search.codes",
    "search float32": "search.floats",
    "softmax": "rows.softmax",
    "codes": "rows.codes",
    "tokens": "rows.tokens",
    "sampling": "rows.sampling",
    "int4": "weights.int4",
    "blocks": "weights.blocks",
    "matmul float32": "products.floats",
    "matmul bf16": "products.halves",
    "matmul int8": "products.codes",
    "matmul squares": "products.squares",
}


def group(name: str) -> Group:
    """The function that makes a group's work."""
    module, _, function = GROUPS[name].partition(".")
    found: Group = getattr(
        importlib.import_module(f"tools.kernels_bench.beside.{module}"), function
    )
    return found
