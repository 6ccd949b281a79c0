"""What GGUF files of llama models have in common: how one is written, its shape, its vocabulary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf


@dataclass(frozen=True)
class LlamaShape:
    """The shape of a llama model, as its file states it."""

    vocabulary: int
    context: int
    width: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    rope_base: float
    epsilon: float


@contextlib.contextmanager
def writing(path: Path) -> Iterator[gguf.GGUFWriter]:
    """What the body adds becomes a file, once it is whole: no server opens half a model."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        writer = gguf.GGUFWriter(part, "llama")
        yield writer
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def add_shape(writer: gguf.GGUFWriter, shape: LlamaShape, *, quantised: bool) -> None:
    """Add the shape, and by which version of its format the weights are quantised."""
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    if quantised:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_vocabulary(
    writer: gguf.GGUFWriter,
    tokens: Sequence[str],
    merges: Sequence[str],
    control: Collection[str],
) -> None:
    """Add the vocabulary of a tokenizer as GPT-2's; `control` are the tokens that are no text."""
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.CONTROL if one in control else kinds.NORMAL for one in tokens])
    writer.add_token_merges(merges)
