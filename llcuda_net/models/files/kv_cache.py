"""What a model remembers of a context, in bytes for each layer, as llama.cpp keeps it.

Most layers keep keys and values of every token. Layers with a sliding window keep those of the
window and of one batch. Recurrent layers (Mamba, RWKV, short convolutions) keep a state for each
slot, however long its context is. Which layer is which, headers say in part; what they leave to
llama.cpp's code is in the tables here, from its build 11434. An architecture that is in none of
them counts as if every layer kept every token: never less than it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from llcuda_net.upstream.engine.context_size import TYPE_BYTES
from llcuda_net.upstream.model.gguf import ModelFile

#: Cells are allocated in multiples of this.
_CELLS = 256

#: Architectures with a sliding window where the header says how wide it is, or the second number
#: does: every so many layers one keeps all tokens, the last of them, or the first where negative.
_WINDOWED = {
    "afmoe": (4, 0), "cohere2": (4, 0), "cohere2moe": (-4, 0), "exaone-moe": (4, 128),
    "exaone4": (4, 4096), "gemma2": (2, 4096), "gemma3": (6, 0), "gemma3n": (5, 0),
    "gpt-oss": (2, 0), "llama4": (4, 8192), "mellum": (4, 0), "muse-glimmer": (4, 0),
    "olmo2": (4, 0), "plamo3": (8, 0), "smallthinker": (-4, 4096),
}  # fmt: skip
#: Architectures that keep nothing: they read all of a text at once.
_NO_CACHE = (
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert",
    "modern-bert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1", "clef",
    "wavtokenizer-dec", "t5encoder",
)  # fmt: skip
#: Architectures whose recurrent layers the header does not name: all but every so many.
_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")


def cells(tokens: int) -> int:
    """Tokens as they are allocated."""
    return -(-tokens // _CELLS) * _CELLS


def cells_seen(model: ModelFile, *, ctx: int, slots: int, batch: int, unified: bool = True) -> int:
    """Cells that the masks of the attention have: of the whole cache, and of the window's."""
    whole = cells(ctx * slots) if unified else cells(ctx)
    if not any(map(_windowed(model), range(model.layers))):
        return whole
    return whole + min(whole, cells(_window(model) * (slots if unified else 1) + batch))


def bytes_by_layer(
    model: ModelFile,
    *,
    ctx: int,
    slots: int,
    batch: int,
    type_k: str = "f16",
    type_v: str = "f16",
    unified: bool = True,
) -> list[int]:
    """Bytes that each layer keeps.

    Args:
        ctx: tokens for each slot.
        batch: tokens that are computed at once (--ubatch-size).
        unified: whether all slots share one cache.

    Raises:
        ValueError: there is no such type of a cache.
    """
    for name in (type_k, type_v):
        if name not in TYPE_BYTES:
            raise ValueError(f"{name!r} is no type of a KV cache: {', '.join(TYPE_BYTES)}")
    if model.architecture in _NO_CACHE:
        return [0] * model.layers
    recurrent = _recurrent(model)
    windowed = _windowed(model)
    keeping = _keeping(model)
    streams = 1 if unified else slots
    whole = cells(ctx * slots) if unified else cells(ctx)
    part = min(whole, cells(_window(model) * (slots if unified else 1) + batch))
    state = _state(model) * slots
    both = model.architecture == "falcon-h1"
    out = []
    for layer in range(model.layers):
        size = Fraction(0)
        if not recurrent(layer) or both:
            key, value = _widths(model, layer, windowed(layer))
            numbers = key * TYPE_BYTES[type_k] + value * TYPE_BYTES[type_v]
            size = numbers * (part if windowed(layer) else whole) * streams
        if not keeping(layer):
            size = Fraction(0)
        out.append(int(size) + (state if recurrent(layer) else 0))
    return out


def _widths(model: ModelFile, layer: int, windowed: bool) -> tuple[int, int]:
    """How many numbers one token has as keys, and as values."""
    heads = model.number("attention.head_count") or max(
        model.per_layer("attention.head_count"), default=0
    )
    width = model.embedding_length // heads if heads else 0
    kept = model.per_layer("attention.head_count_kv", heads)
    count = kept[layer] if layer < len(kept) else heads
    end = "_swa" if windowed and model.number("attention.key_length_swa") else ""
    key = model.number(f"attention.key_length{end}") or width
    value = model.number(f"attention.value_length{end}") or width
    if model.number("attention.key_length_mla"):  # keys and values in one
        value = 0
    return key * count, value * count


def _window(model: ModelFile) -> int:
    """Tokens of the sliding window; 0 where there is none."""
    default = _WINDOWED.get(model.architecture, (0, 0))[1]
    return model.number("attention.sliding_window") or default


def _windowed(model: ModelFile) -> Callable[[int], bool]:
    """Which layers keep a window only."""
    pattern = model.numbers.get("attention.sliding_window_pattern")
    every = _WINDOWED.get(model.architecture, (0, 0))[0]
    if not _window(model):
        return lambda layer: False
    if isinstance(pattern, tuple):
        return lambda layer: layer < len(pattern) and bool(pattern[layer])
    if not every:
        return lambda layer: False
    count = model.number("attention.sliding_window_pattern") or abs(every)
    if every < 0:
        return lambda layer: layer % count != 0
    return lambda layer: layer % count < count - 1


def _recurrent(model: ModelFile) -> Callable[[int], bool]:
    """Which layers keep a state instead of tokens."""
    if model.architecture in _RECURRENT or model.architecture == "falcon-h1":
        return lambda layer: True
    if not _state(model):
        return lambda layer: False
    named = model.numbers.get("attention.recurrent_layers")
    if isinstance(named, tuple):
        return lambda layer: layer < len(named) and bool(named[layer])
    every = model.number("full_attention_interval") or _INTERVAL.get(model.architecture, 0)
    if every:
        return lambda layer: (layer + 1) % every != 0
    kept = model.per_layer("attention.head_count_kv", 1)
    return lambda layer: not kept[layer]


def _keeping(model: ModelFile) -> Callable[[int], bool]:
    """Which layers have a cache of their own: the last ones may use that of others."""
    shared = model.number("attention.shared_kv_layers")
    if model.architecture == "gemma3n":
        shared = max(0, model.layers - 20)
    ahead = model.number("nextn_predict_layers")  # of the head that predicts several tokens
    end = model.layers - (shared or ahead)
    return lambda layer: layer < end


def _state(model: ModelFile) -> int:
    """Bytes that a recurrent layer keeps for each slot, in 32-bit numbers."""
    number, width = model.number, model.embedding_length
    if head := number("wkv.head_size"):
        return 4 * width * (2 + head)
    if cache := number("shortconv.l_cache"):
        return 4 * width * (cache - 1)
    kernel = number("ssm.conv_kernel")
    if head := number("kda.head_dim"):
        heads = number("attention.head_count") or max(
            model.per_layer("attention.head_count"), default=0
        )
        return 4 * (3 * max(0, (kernel or 4) - 1) * heads * head + head * head * heads)
    inner, size = number("ssm.inner_size"), number("ssm.state_size")
    rows = max(0, kernel - 1) * (inner + 2 * number("ssm.group_count") * size)
    return 4 * (rows + size * inner)
