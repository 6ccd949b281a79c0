"""Write the trained network as GGUF, the file that llama.cpp loads.

Matrices are Q8_0 (or F32, to compare llama.cpp with torch), norms stay F32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tools.demo_model.gguf_file import LlamaShape, add_shape, add_vocabulary, writing
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
    with writing(path) as writer:
        _metadata(writer, model, corpus_sha256, seed, quantised)
        _vocabulary(writer, tokenizer)
        for name, values in tensors(model):
            _add(writer, name, values, quantised)
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
    shape = LlamaShape(
        vocabulary=config.vocab_size,
        context=config.context,
        width=config.d_model,
        layers=config.n_layers,
        feed_forward=config.d_ff,
        heads=config.n_heads,
        kv_heads=config.n_kv_heads,
        head_width=config.head_dim,
        rope_base=config.rope_base,
        epsilon=config.eps,
    )
    add_shape(writer, shape, quantised=quantised)


def _vocabulary(writer: gguf.GGUFWriter, tokenizer: DemoTokenizer) -> None:
    add_vocabulary(writer, tokenizer.vocabulary(), tokenizer.merges(), CONTROL)
    writer.add_eos_token_id(tokenizer.id_of(END))
    writer.add_eot_token_id(tokenizer.id_of(END))
    writer.add_pad_token_id(tokenizer.id_of(PAD))
    writer.add_bos_token_id(tokenizer.id_of(END))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
