"""GGUF files of zeros with the shapes of real models: sparse, so that they take no disk."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

Value = int | float | bool | str | list[int] | list[str]
#: Type and dimensions.
Tensors = dict[str, tuple[str, tuple[int, ...]]]

#: ggml type: its number, elements of a block, bytes of it.
_TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q8_0": (8, 32, 34)}


def transformer(
    architecture: str,
    *,
    layers: int,
    width: int,
    heads: int,
    kv: int,
    forward: int,
    vocabulary: int,
    head: int = 0,
    type_: str = "Q8_0",
    experts: tuple[int, int, int] | None = None,
    window: int = 0,
) -> tuple[dict[str, Value], Tensors]:
    """Keys and tensors of a decoder whose output is its embedding.

    Args:
        kv: heads that keep keys and values.
        head: width of a head; 0: width / heads.
        experts: how many, how many are used, their width.
        window: of its sliding attention; 0: none.
    """
    head = head or width // heads
    names = {
        "block_count": layers,
        "context_length": 131072,
        "embedding_length": width,
        "feed_forward_length": forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
    }
    if window:
        names["attention.sliding_window"] = window
    if experts:
        names |= dict(
            zip(
                ("expert_count", "expert_used_count", "expert_feed_forward_length"),
                experts,
                strict=True,
            )
        )
    keys: dict[str, Value] = {"general.architecture": architecture}
    keys |= {f"{architecture}.{name}": value for name, value in names.items()}
    keys[f"{architecture}.attention.layer_norm_rms_epsilon"] = 1e-5
    keys |= _vocabulary(vocabulary)
    tensors: Tensors = {
        "token_embd.weight": (type_, (width, vocabulary)),
        "output_norm.weight": ("F32", (width,)),
    }
    for number in range(layers):
        tensors |= {
            f"blk.{number}.{name}": value
            for name, value in _layer(
                architecture, width, heads * head, kv * head, head, forward, type_, experts
            ).items()
        }
    return keys, tensors


def _layer(
    architecture: str,
    width: int,
    queries: int,
    kept: int,
    head: int,
    forward: int,
    type_: str,
    experts: tuple[int, int, int] | None,
) -> Tensors:
    found: Tensors = {
        "attn_norm.weight": ("F32", (width,)),
        "ffn_norm.weight": ("F32", (width,)),
        "attn_q.weight": (type_, (width, queries)),
        "attn_k.weight": (type_, (width, kept)),
        "attn_v.weight": (type_, (width, kept)),
        "attn_output.weight": (type_, (queries, width)),
    }
    if architecture == "qwen2":
        sizes = {"q": queries, "k": kept, "v": kept}
        found |= {f"attn_{name}.bias": ("F32", (size,)) for name, size in sizes.items()}
    if architecture in ("qwen3", "qwen3moe", "gemma3"):
        found |= {f"attn_{name}_norm.weight": ("F32", (head,)) for name in "qk"}
    if architecture == "gemma3":
        found |= {f"post_{n}.weight": ("F32", (width,)) for n in ("attention_norm", "ffw_norm")}
    if experts is None:
        found["ffn_gate.weight"] = found["ffn_up.weight"] = (type_, (width, forward))
        found["ffn_down.weight"] = (type_, (forward, width))
    else:
        count, _, inner = experts
        found["ffn_gate_inp.weight"] = ("F32", (width, count))
        found["ffn_gate_exps.weight"] = found["ffn_up_exps.weight"] = (type_, (width, inner, count))
        found["ffn_down_exps.weight"] = (type_, (inner, width, count))
    return found


def _vocabulary(count: int) -> dict[str, Value]:
    """Of byte tokens, and others that no text has; as many merges as tokens, as real ones have."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    stands = dict(zip(plain, plain, strict=True)) | {b: 256 + i for i, b in enumerate(others)}
    tokens = [chr(stands[byte]) for byte in range(256)]
    tokens += [f"token{number}" for number in range(count - len(tokens) - 1)] + ["<|end|>"]
    prefix = "tokenizer.ggml"
    return {
        f"{prefix}.model": "gpt2",
        f"{prefix}.pre": "gpt-2",
        f"{prefix}.tokens": tokens,
        f"{prefix}.token_type": [1] * (count - 1) + [3],
        f"{prefix}.merges": [f"{one} {two}" for one, two in zip(tokens, tokens[7:], strict=False)],
        f"{prefix}.eos_token_id": count - 1,
        f"{prefix}.bos_token_id": count - 1,
        f"{prefix}.add_bos_token": False,
    }


def write(path: Path, keys: Mapping[str, Value], tensors: Tensors) -> Path:
    """Write the file, whose tensors are a hole; return `path`.

    Raises:
        OSError: it cannot be written.
    """
    data = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)))
    for key, value in keys.items():
        data += _text(key) + _value(value)
    offset = 0
    for name, (type_, dimensions) in tensors.items():
        number, block, size = _TYPES[type_]
        count = 1
        for dimension in dimensions:
            count *= dimension
        data += _text(name) + struct.pack("<I", len(dimensions))
        data += struct.pack(f"<{len(dimensions)}QIQ", *dimensions, number, offset)
        offset += -(-count // block * size // 32) * 32
    data += bytes(-len(data) % 32)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + offset)
    return path


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(str(v)) for v in value)
    return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


#: Shapes of known models, by the names of their files.
SHAPES: dict[str, Callable[[], tuple[dict[str, Value], Tensors]]] = {
    "llama-mha": lambda: transformer(
        "llama", layers=12, width=768, heads=12, kv=12, forward=2048, vocabulary=32000
    ),
    "llama-1b": lambda: transformer(
        "llama", layers=16, width=2048, heads=32, kv=8, forward=8192, vocabulary=128256
    ),
    "qwen2-0.5b-q4_0": lambda: transformer(
        *("qwen2",), layers=24, width=896, heads=14, kv=2, forward=4864, vocabulary=151936,
        type_="Q4_0",
    ),
    "qwen3-0.6b": lambda: transformer(
        *("qwen3",), layers=28, width=1024, heads=16, kv=8, head=128, forward=3072,
        vocabulary=151936,
    ),
    "gemma3-270m": lambda: transformer(
        *("gemma3",), layers=18, width=640, heads=4, kv=1, head=256, forward=2048,
        vocabulary=262144, window=512,
    ),
    "qwen3moe": lambda: transformer(
        *("qwen3moe",), layers=12, width=1024, heads=16, kv=4, head=128, forward=3072,
        vocabulary=151936, experts=(32, 4, 384),
    ),
}  # fmt: skip
