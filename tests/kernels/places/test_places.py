"""Every operation in every place: kinds of arrays, sizes, strides, streams and GPUs.

One table of operations (`tests.support.kernels.table`) is run over the product of them. Without a
GPU: in the host's memory. With one, alone and without the rest of llcuda's tests::

    python3 -m pytest -c tests/kernels/gpu.ini tests/kernels/places
"""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import numpy as np
import pytest

import llcuda_kernels as k
from tests.support.kernels import kinds
from tests.support.kernels.kinds import Kind
from tests.support.kernels.table import DIMENSIONS, OPERATIONS, ROWS, made, parts

needs_gpu = pytest.mark.gpu


def problem(
    name: str, truth: Any, inputs: dict[str, Any], kind: Kind, where: dict[str, Any], backend: Any
) -> str:
    """What is wrong with an operation in one place; empty where nothing is."""
    operation = OPERATIONS[name]
    late = where["stream"] == "own"
    try:
        with kind.stream(where["gpu"]) if late else contextlib.nullcontext():
            arrays = {
                key: kind.array(value, where["gpu"], where["strided"], late)
                for key, value in inputs.items()
            }
            results = parts(operation.run(arrays, backend))
            del arrays  # whoever gives back what is still read, does it now
            given_back = Kind() if name == "VectorStore" else kind
            found = [given_back.numpy(result) for result in results]
        miss = operation.miss(found, truth)
    except Exception as error:  # whatever goes wrong is told, and the others still run
        first = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {first}"
    return "" if miss <= 1 else f"misses the reference by {miss:.3g} times what is allowed"


def complaints(name: str, of: list[Kind], backend: Any, gpu: bool) -> list[str]:
    """An operation over the product."""
    wrong = []
    for dim, rows in itertools.product(DIMENSIONS, ROWS):
        inputs = made(name, dim, rows)
        truth = OPERATIONS[name].truth(inputs)
        for kind in of:
            numbers = [0] if not gpu or kind.gpus < 2 else [0, 1]
            strides = [False] if kind.name == "DeviceArray" else [False, True]
            streams = ["default", "own"] if gpu else ["default"]
            for number, strided, stream in itertools.product(numbers, strides, streams):
                where = {"gpu": number if gpu else -1, "strided": strided, "stream": stream}
                said = problem(name, truth, inputs, kind, where, backend)
                if said:
                    wrong.append(f"{kind.name}, {dim} x {rows}, {where}: {said}")
    return wrong


@pytest.mark.parametrize("name", OPERATIONS)
def test_in_the_hosts_memory(name: str) -> None:
    assert not complaints(name, kinds.on_cpu(), "cpu", False)


@needs_gpu
@pytest.mark.parametrize("name", OPERATIONS)
def test_on_the_gpu(name: str) -> None:
    if name == "matmul_int8 dp4a" and k.gpu().compute_capability < (6, 1):
        pytest.skip("no dp4a")
    assert not complaints(name, kinds.on_gpu(), "cuda", True)


def test_what_is_wrong_is_told() -> None:
    inputs = made("relu", 4, 2)
    where = {"gpu": -1, "strided": False, "stream": "default"}
    truth = OPERATIONS["relu"].truth(inputs)
    assert not problem("relu", truth, inputs, Kind(), where, "cpu")
    off = [truth[0] + 1e-3]
    assert "misses" in problem("relu", off, inputs, Kind(), where, "cpu")
    assert "TypeError" in problem("relu", truth, {"x": inputs["x"] + 0j}, Kind(), where, "cpu")
    with np.errstate(all="ignore"):
        assert "misses" in problem("relu", [truth[0] * np.nan], inputs, Kind(), where, "cpu")
