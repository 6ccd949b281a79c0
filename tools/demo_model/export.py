"""Write the trained network as GGUF, the file that llama.cpp loads.

Matrices are Q8_0 (or F32, to compare llama.cpp with torch), norms stay F32. The file is written
beside its place and renamed into it, so that a server never opens half a model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tools.demo_model.network import Llama
from tools.demo_model.tokenizer import CHAT_TEMPLATE, CONTROL, END, PAD, DemoTokenizer

Matrix = NDArray[np.float32]

DESCRIPTION = (
    "A demonstration model that knows one manual: it answers questions about llcuda and the ideas "
    "around it, and nothing else."
)


def write(
    path: Path,
    model: Llama,
    tokenizer: DemoTokenizer,
    corpus_sha256: str,
    seed: int,
    quantised: bool = True,
) -> int:
    """Write `model` to `path`; returns the size of the file in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        writer = gguf.GGUFWriter(part, "llama")
        _metadata(writer, model, corpus_sha256, seed, quantised)
        _vocabulary(writer, tokenizer)
        for name, values in tensors(model):
            _add(writer, name, values, quantised)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path.stat().st_size


def tensors(model: Llama) -> Iterator[tuple[str, Matrix]]:
    """Every tensor under llama.cpp's name. No output matrix: the embeddings serve."""

    def values(parameter: object) -> Matrix:
        out: Matrix = parameter.detach().cpu().float().numpy()  # type: ignore[attr-defined]
        return out

    yield "token_embd.weight", values(model.embed.weight)
    yield "output_norm.weight", values(model.norm.weight)
    kv_width = model.config.n_kv_heads * model.config.head_dim
    for i, block in enumerate(model.blocks):
        kv, gate_up = values(block.attn.kv.weight), values(block.gate_up.weight)
        yield f"blk.{i}.attn_norm.weight", values(block.attn_norm.weight)
        yield f"blk.{i}.attn_q.weight", values(block.attn.q.weight)
        yield f"blk.{i}.attn_k.weight", kv[:kv_width]
        yield f"blk.{i}.attn_v.weight", kv[kv_width:]
        yield f"blk.{i}.attn_output.weight", values(block.attn.out.weight)
        yield f"blk.{i}.ffn_norm.weight", values(block.ffn_norm.weight)
        yield f"blk.{i}.ffn_gate.weight", gate_up[: model.config.d_ff]
        yield f"blk.{i}.ffn_up.weight", gate_up[model.config.d_ff :]
        yield f"blk.{i}.ffn_down.weight", values(block.down.weight)


def _add(writer: gguf.GGUFWriter, name: str, values: Matrix, quantised: bool) -> None:
    if quantised and values.ndim == 2:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, np.ascontiguousarray(values))


def _metadata(
    writer: gguf.GGUFWriter, model: Llama, corpus_sha256: str, seed: int, quantised: bool
) -> None:
    config = model.config
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32
    writer.add_type("model")
    writer.add_name("llcuda demo")
    writer.add_description(DESCRIPTION)
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_file_type(kind)
    writer.add_string("llcuda.corpus.sha256", corpus_sha256)
    writer.add_uint64("llcuda.seed", seed)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.eps)
    if quantised:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _vocabulary(writer: gguf.GGUFWriter, tokenizer: DemoTokenizer) -> None:
    tokens = tokenizer.vocabulary()
    types = [
        gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(tokenizer.merges())
    writer.add_eos_token_id(tokenizer.id_of(END))
    writer.add_eot_token_id(tokenizer.id_of(END))
    writer.add_pad_token_id(tokenizer.id_of(PAD))
    writer.add_bos_token_id(tokenizer.id_of(END))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
