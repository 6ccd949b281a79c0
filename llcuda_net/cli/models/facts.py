"""What `llcuda models` says of a model: figures for people, and documents for programs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Parser

if TYPE_CHECKING:
    from llcuda_net.models.files.local_file import LocalFile
    from llcuda_net.models.files.memory import Estimate
    from llcuda_net.upstream.model.gguf import ModelFile

#: How a source is called.
TITLES = {
    "models": "ours",
    "huggingface": "Hugging Face",
    "lmstudio": "LM Studio",
    "ollama": "Ollama",
    "llama.cpp": "llama.cpp",
    "file": "a file",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What a model may take here, in bytes; None where that is not known, or there is none."""

    host: int | None
    gpu: int | None

    @classmethod
    def here(cls) -> Machine:
        """Of this machine."""
        from llcuda_net.models.files.machine import gpu_memory, host_budget

        return cls(host_budget(), gpu_memory())


def add_load_options(parser: Parser) -> None:
    """For how many slots and which context memory is estimated."""
    parser.add_argument(
        "--slots", metavar="N", type=_count, default=4, help="for so many slots (default: 4)"
    )
    parser.add_argument(
        "--ctx",
        metavar="N",
        type=_count,
        help="for so many tokens of context in each; default: what the model was trained for, at "
        "most 4096",
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:10]) > 0 and len(text) < 10):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def context(model: ModelFile, arguments: argparse.Namespace) -> int:
    """Tokens for each slot that are meant."""
    from llcuda_net.models.files.memory import default_context

    return arguments.ctx or default_context(model)


def estimates(file: LocalFile, ctx: int, slots: int) -> tuple[Estimate, Estimate]:
    """The memory it needs without a GPU, and with all layers on one."""
    from llcuda_net.models.files.memory import ALL_LAYERS, estimate

    assert file.model is not None
    try:
        mmproj = file.mmproj.stat().st_size if file.mmproj else 0
    except OSError:
        mmproj = 0
    host = estimate(file.model, ctx=ctx, slots=slots, mmproj=mmproj)
    gpu = estimate(file.model, ctx=ctx, slots=slots, mmproj=mmproj, gpu_layers=ALL_LAYERS)
    return host, gpu


def fits(host: Estimate, gpu: Estimate, machine: Machine) -> str:
    """Where it fits: on the GPU with all layers, in host memory, nowhere; empty: not known."""
    beside = machine.host is None or gpu.host <= machine.host
    if machine.gpu is not None and gpu.gpu <= machine.gpu and beside:
        return "GPU"
    if machine.host is None:
        return ""
    if host.host <= machine.host:
        return "yes"
    both = machine.host + (machine.gpu or 0)
    return "in part on the GPU" if machine.gpu and host.host + gpu.overhead.gpu <= both else "no"


def parameters_text(count: int) -> str:
    """A number of weights as the field writes it: 135M, 1.2B."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"
    return str(count)


def document(file: LocalFile, ctx: int, slots: int, machine: Machine) -> dict[str, Any]:
    """One model for programs. Sizes are bytes."""
    out: dict[str, Any] = {
        "name": file.name,
        "source": file.source,
        "path": str(file.path),
        "problem": file.problem or None,
        "note": file.note or None,
    }
    model = file.model
    if model is None:
        return out
    out |= {
        "kind": str(model.kind),
        "files": [str(part) for part in model.parts],
        "mmproj": str(file.mmproj) if file.mmproj else None,
        "bytes": model.size,
        "architecture": model.architecture,
        "title": model.name,
        "quantisation": model.quantisation or None,
        "parameters": model.parameters,
        "layers": model.layers,
        "embedding_length": model.embedding_length,
        "vocabulary": model.vocabulary,
        "trained_context": model.trained_context,
        "chat_template": model.chat_template,
    }
    if file.is_model:
        out["memory"] = memory_document(file, ctx, slots, machine)
    return out


def memory_document(file: LocalFile, ctx: int, slots: int, machine: Machine) -> dict[str, Any]:
    """What it needs for one context, in bytes."""
    host, gpu = estimates(file, ctx, slots)
    return {
        "ctx": ctx,
        "slots": slots,
        "host": host.host,
        "kv_cache": host.cache.host,
        "all_layers_on_gpu": {"host": gpu.host, "gpu": gpu.gpu},
        "may_grow_by": host.growth,
        "fits": fits(host, gpu, machine) or None,
    }
