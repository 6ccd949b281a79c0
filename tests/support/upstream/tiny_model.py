"""A model that loads in milliseconds and says nothing sensible, for tests of what is around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

_WIDTH, _LAYERS, _FORWARD = 64, 2, 160
_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_tiny_model(
    path: Path,
    *,
    architecture: str = "llama",
    pooling: int | None = None,
    template: str = _TEMPLATE,
    words: Sequence[str] = (),
    fills: bool = False,
) -> Path:
    """Write a random llama of 100,000 weights with byte tokens; return `path`.

    Args:
        template: of its chats.
        words: texts that are one token each, as the marks of a tool call are in most models.
        fills: it has marks around a gap that it is to fill; they are those of its chats.
    """
    tokens = [*_byte_tokens(), "Ġt", "Ġa", *words, "<|end|>", "<|user|>", "<|assistant|>"]
    end = len(tokens) - 3
    w = gguf.GGUFWriter(str(path), architecture)
    w.add_name("tiny")
    w.add_context_length(512)
    w.add_embedding_length(_WIDTH)
    w.add_block_count(_LAYERS)
    w.add_feed_forward_length(_FORWARD)
    w.add_head_count(4)
    w.add_head_count_kv(4)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(16)
    w.add_vocab_size(len(tokens))
    w.add_file_type(0)
    if pooling is not None:
        w.add_pooling_type(gguf.PoolingType(pooling))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([1] * (end - len(words)) + [4] * len(words) + [3] * 3)
    w.add_token_merges(["Ġ t", "Ġ a"])
    w.add_eos_token_id(end)
    w.add_bos_token_id(end)
    w.add_add_bos_token(False)
    if fills:
        for number, mark in enumerate(("pre", "suf", "mid")):
            w.add_uint32(f"tokenizer.ggml.fim_{mark}_token_id", end + number)
    w.add_chat_template(template)
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        w.add_tensor(name, (random.standard_normal(shape) * 0.2).astype(np.float32))

    def add_ones(name: str) -> None:
        w.add_tensor(name, np.ones(_WIDTH, np.float32))

    add("token_embd.weight", len(tokens), _WIDTH)
    add_ones("output_norm.weight")
    for i in range(_LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            add_ones(f"blk.{i}.{name}.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{i}.{name}.weight", _WIDTH, _WIDTH)
        add(f"blk.{i}.ffn_gate.weight", _FORWARD, _WIDTH)
        add(f"blk.{i}.ffn_up.weight", _FORWARD, _WIDTH)
        add(f"blk.{i}.ffn_down.weight", _WIDTH, _FORWARD)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def _byte_tokens() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    stands = dict(zip(plain, plain, strict=True)) | {b: 256 + i for i, b in enumerate(others)}
    return [chr(stands[byte]) for byte in range(256)]
