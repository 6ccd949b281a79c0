"""What memory a context takes: whether it fits, and how much to keep of prompts that have ended."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.load_progress import human_size
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.model.gguf import ModelFile, show_path

#: MiB of prompts that are kept at most. (llama.cpp: by default eight times as much.)
MOST_CACHE = 1024

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_GPUS = ("/dev/nvidia0", "/dev/kfd", "/dev/dri")

#: Bytes of a number in the KV cache, by llama.cpp's type.
TYPE_BYTES = {
    "f32": Fraction(4),
    "f16": Fraction(2),
    "bf16": Fraction(2),
    "q8_0": Fraction(34, 32),
    "q5_1": Fraction(24, 32),
    "q5_0": Fraction(22, 32),
    "q4_1": Fraction(20, 32),
    "q4_0": Fraction(18, 32),
    "iq4_nl": Fraction(18, 32),
}


def bytes_per_token(model: ModelFile, options: EngineOptions) -> int | None:
    """Of context, in memory; None where that is not simple."""
    if model.bytes_per_token is None:
        return None
    kinds = (options.cache_type_k, options.cache_type_v)
    key, value = (TYPE_BYTES[kind or "f16"] for kind in kinds)
    return max(1, round(model.bytes_per_token * (key + value) / 4))


def check_context(model: ModelFile, options: EngineOptions) -> None:
    """Refuse a context that llama.cpp would cut, or that cannot have memory.

    One that was not asked for always fits.

    Raises:
        EngineError: it is too large.
    """
    ctx, slots = options.ctx, options.slots
    if ctx is None:
        return
    name = show_path(model.parts[0])
    trained, extended = model.trained_context, options.extends_context
    if trained is not None and extended is not None and ctx > trained * extended:
        most = int(trained * extended)
        raise EngineError(
            f"--ctx {ctx} is more than the {trained} tokens that {name} was trained for: give at "
            f"most {most}"
            if most == trained
            else f"--ctx {ctx} is more than {most} tokens, which are {extended:g} times the "
            f"{trained} that {name} was trained for: give at most that"
        )
    memory, each = memory_here(), bytes_per_token(model, options)
    if each is None or memory is None:
        return
    needed = model.size + ctx * slots * each
    if needed > memory:
        room = max(0, memory - model.size) // (slots * each)
        raise EngineError(
            f"--ctx {ctx} for each of {slots} slots needs {human_size(needed)} with {name}, and "
            f"there are {human_size(memory)}: give --ctx {room} or fewer --slots"
            if room
            else f"{name} with --ctx {ctx} needs {human_size(needed)}, and there are "
            f"{human_size(memory)}: use a smaller model"
        )


def prompt_cache(model: ModelFile, ctx: int, options: EngineOptions) -> int:
    """MiB for the prompts whose slots have another one now: as much as all slots hold, at most.

    So every slot can come back to the conversation that it had before. A small model would fill
    more with thousands of prompts that nobody comes back to.

    Args:
        ctx: tokens for each slot.
    """
    each = bytes_per_token(model, options)
    if each is None:
        return MOST_CACHE
    return min(MOST_CACHE, max(1, -(-ctx * options.slots * each >> 20)))


def memory_here() -> int | None:
    """Bytes that this process may have at most; None where a GPU may hold the context, too."""
    if any(Path(device).exists() for device in _GPUS) or not hasattr(os, "sysconf"):
        return None
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
        return min(memory, int(limit)) if limit != "max" else memory
    except (OSError, ValueError):
        return None
