"""Compile kernels without a GPU, and read what the compiler says of them.

numba-cuda makes PTX; ptxas, NVIDIA's assembler, tells registers, spills and shared memory.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = (
    "elementwise",
    "gemm.few_rows",
    "gemm.tensor_few_rows",
    "gemm.warpgroup_few_rows",
    "gemm.warpgroup_matmul",
    "matmul",
    "norms",
    "planes.any_fields",
    "planes.pairs",
    "planes.scaled",
    "primitives.nearest.scan",
    "primitives.strided",
    "products",
    "quantize",
    "sampling",
    "search",
    "synthetic_load",
    "tensor_matmul",
    "tokens",
    "weights.act_order",
    "weights.blocks",
    "weights.int4",
)
ARCHITECTURES = ((7, 5), (8, 0), (9, 0))
#: Those that the toolkit knows beside.
NEWER = ((8, 9), (10, 0), (12, 0))
#: What instructions are told by in PTX.
INSTRUCTIONS = {
    "vector load": r"\bld\.(?:global|shared)?[\w.]*\.?v4\.",
    "vector store": r"\bst\.(?:global|shared)?[\w.]*\.?v4\.",
    "dp4a": r"\bdp4a\.",
    "mma": r"\bmma\.sync\.",
    "wgmma": r"\bwgmma\.mma_async\.",
    "cp.async": r"\bcp\.async\.cg\.",
    "ldmatrix": r"\bldmatrix\.",
    "cluster": r"\.reqnctapercluster\b",
    "shuffle": r"\bshfl\.sync\.",
    "fma": r"\bfma\.rn\.f32\b",
}
#: What none may contain: float64 is slow on most GPUs, and local memory is not registers.
NEVER = {"float64": r"\.f64\b", "local memory": r"\b(?:ld|st)\.local\b"}


@dataclass(frozen=True)
class Output:
    """What numba-cuda made of a kernel, and what ptxas reported of that."""

    ptx: str
    ptxas: str


@dataclass(frozen=True)
class Found:
    """What a kernel came to on one architecture."""

    registers: int
    shared: int
    spilled: int
    instructions: list[str]
    forbidden: list[str]


def kernels() -> dict[str, Any]:
    """Every kernel by name."""
    from llcuda_kernels.cuda.runtime.kernel import REGISTRY

    for name in MODULES:
        importlib.import_module(f"llcuda_kernels.cuda.{name}")
    return dict(REGISTRY)


def assembler() -> Path:
    """Where ptxas is: the wheel nvidia-cuda-nvcc brings it."""
    found = importlib.util.find_spec("nvidia.cu13")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "bin/ptxas"
        if path.exists():
            return path
    raise FileNotFoundError("ptxas: install the extra dev, which has nvidia-cuda-nvcc")


def compile_kernel(name: str, cc: tuple[int, int]) -> Output:
    """The PTX of one kernel for one architecture, and ptxas's report; raises RuntimeError."""
    text = kernels()[name].ptx(cc)
    target = re.findall(r"^\.target\s+(\w+)", text, re.MULTILINE)[0]  # sm_90, or sm_90a
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(text)
        done = subprocess.run(
            [assembler(), f"-arch={target}", "-v", source, "-o", source.with_suffix(".o")],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{name} for {cc}: {done.stderr}")
    return Output(text, done.stderr)


def read(output: Output) -> Found:
    """What the compilers' output says."""
    text, said = output.ptx, output.ptxas
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", said)
    smem = re.findall(r"(\d+) bytes smem", said)
    return Found(
        registers=int(re.findall(r"Used (\d+) registers", said)[0]),
        shared=int(smem[0]) if smem else 0,
        spilled=sum(int(n) for n in spills),
        instructions=[kind for kind, shape in INSTRUCTIONS.items() if re.search(shape, text)],
        forbidden=[kind for kind, shape in NEVER.items() if re.search(shape, text)],
    )


def compile_many(work: list[tuple[str, tuple[int, int]]]) -> list[Output | str]:
    """Several, in this process; what went wrong in place of the output."""
    out: list[Output | str] = []
    for name, cc in work:
        try:
            out.append(compile_kernel(name, cc))
        except Exception as error:
            out.append(f"{type(error).__name__}: {error}")
    return out
