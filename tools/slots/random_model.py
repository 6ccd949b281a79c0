"""GGUF files with random weights, of the shape of a real model: they are as fast, and say nonsense.

The vocabulary is made so that text of its words is read as the tokens that it was written as, which
makes what a slot holds of a conversation reusable: each word is a space and up to three pairs of a
consonant and a vowel, and merges lead to it by one way only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tools.demo_model.gguf_file import LlamaShape, add_shape, add_vocabulary, writing
from tools.slots.workload import CONSONANTS, VOWELS

#: Quantised weights: bytes of a block, and how many weights it holds.
_Q8_BLOCK, _Q8_WEIGHTS = 34, 32
#: Bytes of random weights that are made; large matrices repeat them.
_PATTERN = 32 << 20
END, SPACE = "<end>", "\u0120"


@dataclass(frozen=True)
class Shape:
    """The shape of a llama model."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    tied: bool

    @property
    def kv_width(self) -> int:
        """Numbers of a token's keys in one layer."""
        return self.width // self.heads * self.kv_heads


#: SmolLM2-135M's, Llama 3.1 8B's, and one for tests.
SHAPES = {
    "tiny": Shape(2, 64, 2, 1, 192, 12_000, True),
    "135m": Shape(30, 576, 9, 3, 1536, 49_152, True),
    "8b": Shape(32, 4096, 32, 8, 14_336, 128_256, False),
}


def write(path: Path, shape: Shape, quantised: bool = True, seed: int = 1) -> int:
    """Write a model; returns the size of the file in bytes.

    Args:
        quantised: matrices in Q8_0, else in F16.
    """
    with writing(path) as writer:
        _metadata(writer, shape, quantised)
        _vocabulary(writer, shape.vocabulary)
        kind = gguf.GGMLQuantizationType.Q8_0 if quantised else gguf.GGMLQuantizationType.F16
        pattern = _q8_pattern(seed) if quantised else _f16_pattern(seed)
        for name, rows, columns in matrices(shape):
            writer.add_tensor(name, _repeated(pattern, rows, columns, quantised), raw_dtype=kind)
        for name in norms(shape):
            writer.add_tensor(name, np.ones(shape.width, np.float32))
    return path.stat().st_size


def matrices(shape: Shape) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of each."""
    width, hidden, kv = shape.width, shape.feed_forward, shape.kv_width
    yield "token_embd.weight", shape.vocabulary, width
    if not shape.tied:
        yield "output.weight", shape.vocabulary, width
    for i in range(shape.layers):
        yield f"blk.{i}.attn_q.weight", width, width
        yield f"blk.{i}.attn_k.weight", kv, width
        yield f"blk.{i}.attn_v.weight", kv, width
        yield f"blk.{i}.attn_output.weight", width, width
        yield f"blk.{i}.ffn_gate.weight", hidden, width
        yield f"blk.{i}.ffn_up.weight", hidden, width
        yield f"blk.{i}.ffn_down.weight", width, hidden


def norms(shape: Shape) -> Iterator[str]:
    """The names of the vectors."""
    yield "output_norm.weight"
    for i in range(shape.layers):
        yield f"blk.{i}.attn_norm.weight"
        yield f"blk.{i}.ffn_norm.weight"


def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens, and the merges by which words become them."""
    pairs = [c + v for c, v in itertools.product(CONSONANTS, VOWELS)]
    levels = [
        (pairs, [f"{pair[0]} {pair[1]}" for pair in pairs]),
        ([SPACE + pair for pair in pairs], [f"{SPACE} {pair}" for pair in pairs]),
    ]
    for _ in range(2):
        longer = list(itertools.product(levels[-1][0], pairs))
        levels.append(([a + b for a, b in longer], [f"{a} {b}" for a, b in longer]))
    tokens = [END, *_bytes()]
    merges: list[str] = []
    for words, rules in levels:
        room = size - len(tokens)
        tokens += words[:room]
        merges += rules[:room]
    assert len(tokens) == size
    return tokens, merges


def _bytes() -> list[str]:
    """The characters that stand for bytes, as GPT-2's tokenizer writes them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + at) for at in range(len(hidden))]


def _q8_pattern(seed: int) -> NDArray[np.uint8]:
    chance = np.random.default_rng(seed)
    blocks = chance.integers(0, 256, (_PATTERN // _Q8_BLOCK, _Q8_BLOCK), dtype=np.uint8)
    # The scale of each block, so that weights are about as large as those of a trained model.
    blocks[:, :2] = np.frombuffer(np.float16(0.02 / 73).tobytes(), np.uint8)
    return blocks.reshape(-1)


def _f16_pattern(seed: int) -> NDArray[np.uint8]:
    chance = np.random.default_rng(seed)
    weights = chance.standard_normal(_PATTERN // 2, dtype=np.float32) * 0.02
    return weights.astype(np.float16).view(np.uint8)


def _repeated(
    pattern: NDArray[np.uint8], rows: int, columns: int, quantised: bool
) -> NDArray[np.uint8] | NDArray[np.float16]:
    """A matrix of the pattern, from another place on in each."""
    row = columns // _Q8_WEIGHTS * _Q8_BLOCK if quantised else 2 * columns
    need = rows * row
    whole = np.resize(pattern, need) if need > len(pattern) else pattern[:need]
    if quantised:
        return whole.reshape(rows, row)
    return whole.view(np.float16).reshape(rows, columns)


def _metadata(writer: gguf.GGUFWriter, shape: Shape, quantised: bool) -> None:
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.MOSTLY_F16
    writer.add_type("model")
    writer.add_name("random weights")
    writer.add_file_type(kind)
    stated = LlamaShape(
        vocabulary=shape.vocabulary,
        context=131_072,
        width=shape.width,
        layers=shape.layers,
        feed_forward=shape.feed_forward,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_width=shape.width // shape.heads,
        rope_base=500_000.0,
        epsilon=1e-5,
    )
    add_shape(writer, stated, quantised=quantised)


def _vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    tokens, merges = vocabulary(size)
    add_vocabulary(writer, tokens, merges, {END})
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
