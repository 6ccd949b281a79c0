"""What memory a model needs, estimated from its header before it is loaded.

    weights   those of the layers on the GPU there, the rest in host memory, mapped from the file
    cache     keys and values of the context, by `kv_cache.py`
    compute   the buffer for the largest step of one batch of tokens
    overhead  the process, its vocabulary, what it hands out, the driver of a GPU

The sizes of the compute buffer were found by experiment: llama-server (build 11434) on models of
twelve architectures and shapes, whose log says how large it is. For a batch of n tokens, in numbers
of 32 bits, it is n * (5 widths of the model + the most that one layer has at a time: three times
its feed-forward width, twice its attention heads', or those of the experts in use), and the mask of
the attention: n * cells of the cache, at 16 bits. docs/models.md says how well that holds.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import NamedTuple

from llcuda_net.models.files.kv_cache import bytes_by_layer, cells_seen
from llcuda_net.models.need import Need
from llcuda_net.upstream.model.gguf import Kind, ModelFile

#: Tokens that llama.cpp computes at once where nothing else is said (--ubatch-size).
BATCH = 512
#: Slots where nothing else is said.
SLOTS = 4
_CONTEXT = 4096
#: All layers and the output on the GPU.
ALL_LAYERS = 1 << 30

_MIB = 1 << 20
#: An engine without a model, measured: a llama-server 18 MiB (11 of them its program), the built-in
#: one, which has an interpreter of Python around it, 34.
_PROCESS = 34 * _MIB
#: Of each token of the vocabulary, and of its merges: 320 to 330 measured.
_PER_TOKEN = 340
#: Of each slot: 80 kB measured.
_PER_SLOT = 100_000
#: CUDA's context and the kernels in it, on the GPU.
_GPU_CONTEXT = 600 * _MIB
#: What a projector computes with, on an image: an assumption, not measured.
_PROJECTING = 256 * _MIB
#: Most checkpoints that a slot keeps of what cannot be cut (--ctx-checkpoints).
_CHECKPOINTS = 32
#: Weights of these types are copied when they are loaded, in an order that suits the CPU.
_REPACKED = ("Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4")
_REPACKED_ON_ARM = ("Q5_K", "Q6_K", "Q8_0")


class Bytes(NamedTuple):
    """Bytes in host memory and on GPUs."""

    host: int = 0
    gpu: int = 0


_NOTHING = Bytes()


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory that a loaded model takes, by what it is for.

    Attributes:
        growth: bytes of host memory that it may take later, with use: prompts that are kept, and
            checkpoints of layers that cannot go back.
    """

    weights: Bytes = _NOTHING
    cache: Bytes = _NOTHING
    compute: Bytes = _NOTHING
    overhead: Bytes = _NOTHING
    growth: int = 0

    @property
    def need(self) -> Need:
        """All of it together."""
        return Need(self.host, self.gpu)

    @property
    def host(self) -> int:
        """Bytes of host memory, once it is loaded."""
        return self.weights.host + self.cache.host + self.compute.host + self.overhead.host

    @property
    def gpu(self) -> int:
        """Bytes of all GPUs together."""
        return self.weights.gpu + self.cache.gpu + self.compute.gpu + self.overhead.gpu

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            _sum(self.weights, other.weights),
            _sum(self.cache, other.cache),
            _sum(self.compute, other.compute),
            _sum(self.overhead, other.overhead),
            self.growth + other.growth,
        )


def default_context(model: ModelFile) -> int:
    """Tokens of context for a slot where none are asked for."""
    return min(_CONTEXT, model.trained_context or _CONTEXT)


def estimate(
    model: ModelFile,
    *,
    ctx: int,
    slots: int,
    gpu_layers: int = 0,
    cache_type_k: str = "f16",
    cache_type_v: str = "f16",
    unified: bool = True,
    batch: int = BATCH,
    flash_attention: bool = True,
    embeddings: bool = False,
    mmproj: int = 0,
    lora: int = 0,
    draft: ModelFile | None = None,
    draft_gpu_layers: int | None = None,
    prompt_cache: int = 0,
) -> Estimate:
    """What `model` needs when it is loaded so.

    Args:
        ctx: tokens for each slot.
        gpu_layers: as --gpu-layers; the output counts as a layer. 0: no GPU is used.
        unified: whether all slots share one cache (--kv-unified).
        batch: tokens that are computed at once (--ubatch-size).
        embeddings: it is started to embed (--embeddings), too: every token of a batch has an
            output then. Always so for a model that only embeds or ranks.
        mmproj: bytes of the projector's file.
        lora: bytes of the adapters' files.
        draft: a smaller model that drafts, with the same slots and context.
        draft_gpu_layers: of the draft; None: as the model's.
        prompt_cache: bytes of prompts that it may keep (--cache-ram).

    Raises:
        ValueError: there is no such type of a cache.
    """
    slots, ctx = max(1, slots), max(1, ctx)
    first = max(0, model.layers + 1 - gpu_layers) if gpu_layers > 0 else model.layers + 1
    by_layer = bytes_by_layer(
        model,
        ctx=ctx,
        slots=slots,
        batch=batch,
        type_k=cache_type_k,
        type_v=cache_type_v,
        unified=unified,
    )
    on_gpu = gpu_layers > 0
    width = cells_seen(model, ctx=ctx, slots=slots, batch=batch, unified=unified)
    size, outputs = _compute(model, min(batch, ctx * slots), width, flash_attention), slots
    if embeddings or model.kind is not Kind.CHAT:
        outputs = batch
    logits = 4 * outputs * (model.vocabulary if model.kind is Kind.CHAT else 0)
    size = max(size, logits + 4 * batch * 5 * model.embedding_length + 2 * batch * width)
    passed = 4 * outputs * (model.vocabulary + model.embedding_length)
    need = Estimate(
        weights=_weights(model, first, lora),
        cache=Bytes(sum(by_layer[:first]), sum(by_layer[first:])),
        # With all layers on the GPU the host has what goes in: embeddings, and the mask.
        compute=Bytes(
            size if first else 4 * batch * model.embedding_length + 2 * batch * width,
            size if on_gpu else 0,
        ),
        overhead=Bytes(
            _PROCESS + _PER_TOKEN * model.vocabulary + _PER_SLOT * slots + passed,
            _GPU_CONTEXT if on_gpu else 0,
        ),
        growth=prompt_cache + _checkpoints(model, by_layer),
    )
    if mmproj:
        at = Bytes(0, mmproj) if on_gpu else Bytes(mmproj)
        work = Bytes(0, _PROJECTING) if on_gpu else Bytes(_PROJECTING)
        need += Estimate(weights=at, compute=work)
    if draft is not None:
        layers = gpu_layers if draft_gpu_layers is None else draft_gpu_layers
        drafting = estimate(draft, ctx=ctx, slots=slots, gpu_layers=layers, unified=unified)
        need += Estimate(drafting.weights, drafting.cache, drafting.compute)
    return need


def _weights(model: ModelFile, first: int, lora: int) -> Bytes:
    """The layers from `first` on are on the GPU, and the output where it counts as one of them."""
    weights = model.weights
    layers = weights.layers
    output = weights.output or weights.embedding
    # A tensor of an unknown type has no size in `weights`: then go by the files.
    unknown = max(0, model.size - weights.total)
    share = sum(layers[first:]) / (sum(layers) or 1)
    gpu = sum(layers[first:]) + (output if first <= model.layers else 0) + int(lora * share)
    host = weights.total - sum(layers[first:]) + lora - int(lora * share)
    if first <= model.layers:
        host -= weights.output
        gpu += 0 if layers else unknown
    elif not weights.output and _is_repacked(weights.embedding_type):
        host += weights.embedding  # mapped to look tokens up, and copied as the output
    if unknown > model.size // 8:  # more than a header
        gpu, host = gpu + int(unknown * share), host + unknown - int(unknown * share)
    return Bytes(host, gpu)


def _is_repacked(type_: str) -> bool:
    on_arm = platform.machine().lower() in ("arm64", "aarch64")
    return type_ in _REPACKED or (on_arm and type_ in _REPACKED_ON_ARM)


def _compute(model: ModelFile, batch: int, width: int, flash_attention: bool) -> int:
    """Bytes of the compute buffer but for the output."""
    number = model.number
    embedding = model.embedding_length
    heads = max(model.per_layer("attention.head_count"), default=0)
    head = number("attention.key_length") or (embedding // heads if heads else 0)
    attention = (3 if number("attention.key_length_mla") else 2) * heads * head
    forward = 3 * max(model.per_layer("feed_forward_length"), default=0)
    if used := number("expert_used_count"):
        inner = number("expert_feed_forward_length") or forward // 3
        shared = 3 * number("expert_shared_feed_forward_length")
        forward = max(used * max(2 * embedding, 3 * inner) + embedding + shared, forward)
    inner = 6 * number("ssm.inner_size")
    numbers = max(forward, attention, inner) + 5 * embedding
    mask = 2 * batch * width
    if not flash_attention:
        scores = batch * width * 4 * heads + 2 * mask
        return max(4 * batch * numbers + mask, scores + 4 * batch * 7 * embedding)
    return 4 * batch * numbers + mask


def _checkpoints(model: ModelFile, by_layer: list[int]) -> int:
    """What slots keep to go back to: of layers that hold a window or a state."""
    largest = max(by_layer, default=0)
    partial = sum(size for size in by_layer if size < largest)
    state = any(key.startswith(("ssm.", "wkv.", "shortconv.")) for key in model.numbers)
    if state and not partial:
        partial = sum(by_layer)
    window = model.number("attention.sliding_window") > 0
    return _CHECKPOINTS * partial if state or window else 0


def _sum(one: Bytes, other: Bytes) -> Bytes:
    return Bytes(one.host + other.host, one.gpu + other.gpu)
