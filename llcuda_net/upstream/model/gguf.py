"""A look at a model file before an engine is started on it.

Reads the headers of GGUF files only (`header.py`, which trusts none of it). It answers questions
that llama.cpp answers late or vaguely: is the whole file here, and what is in it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from llcuda_net.errors import EngineError
from llcuda_net.upstream.model.header import (
    EMBEDDING,
    MOST_LAYERS,
    OTHER,
    OUTPUT,
    Header,
    Scalar,
    read_header,
    show_path,
)

__all__ = ["MODELS", "Kind", "ModelFile", "Weights", "read_model_file", "show_path"]

#: ggml tensor type: its name.
TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K",
    11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
    18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
#: llama.cpp's file type (llama_ftype): its name.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
}  # fmt: skip
_RANK = 4  # llama.cpp's number of the pooling that ranks
#: Architectures that only embed or rank, even where the header names no pooling.
_ENCODERS = ("bert", "t5encoder", "gemma-embedding")


class Kind(StrEnum):
    """What a GGUF file is for."""

    CHAT = "chat"  # it generates text, whether it has a chat template or not
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    PROJECTOR = "projector"  # an mmproj file: images or sound for a model beside it
    ADAPTER = "adapter"  # a LoRA
    OTHER = "other"  # an importance matrix, a control vector, a vocabulary alone


#: What can be loaded as a model.
MODELS = (Kind.CHAT, Kind.EMBEDDINGS, Kind.RERANK)


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of weights, by where they are used.

    Attributes:
        layers: of each layer, by its number.
        embedding: the table of the tokens' embeddings.
        output: the matrix that makes tokens of what the last layer says; 0 where that is the
            embedding's.
        other: norms and all else.
        embedding_type: the quantisation of the embedding, such as Q6_K; empty where it is new.
    """

    layers: tuple[int, ...] = ()
    embedding: int = 0
    output: int = 0
    other: int = 0
    embedding_type: str = ""

    @property
    def total(self) -> int:
        """Bytes of all."""
        return sum(self.layers) + self.embedding + self.output + self.other


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model's header says, as far as it matters here.

    Attributes:
        parts: the files of the model: one, unless it was split.
        size: bytes of all parts together.
        architecture: `general.architecture`, empty where absent.
        name: `general.name`, or the file's own name.
        trained_context: tokens of context that the model was trained for, where the header has it.
        pooling: how embeddings are to be pooled (llama.cpp's number), where the header has it.
        quantisation: `general.file_type` by llama.cpp's name, such as Q4_K_M; where it is absent
            or new, the tensor type of most weights; empty where that is new, too.
        bytes_per_token: of context, in memory, at 16 bits; None where that is not so simple: where
            layers differ, remember only a part, or share.
        kind: what it is for, one of `Kind`.
        parameters: how many weights it has.
        layers: how many there are (`block_count`); 0 where absent.
        embedding_length: width of what goes from layer to layer; 0 where absent.
        vocabulary: how many tokens it knows; 0 where absent.
        chat_template: whether it has one.
        weights: bytes of its tensors.
        numbers: the keys of its architecture without their prefix (`attention.head_count_kv`),
            that have a number, or a number for each layer.
    """

    parts: tuple[Path, ...]
    size: int
    architecture: str
    name: str
    trained_context: int | None
    pooling: int | None
    quantisation: str = ""
    bytes_per_token: int | None = None
    kind: Kind = Kind.CHAT
    parameters: int = 0
    layers: int = 0
    embedding_length: int = 0
    vocabulary: int = 0
    chat_template: bool = False
    weights: Weights = Weights()
    numbers: dict[str, float | tuple[float, ...]] = field(default_factory=dict, hash=False)

    def number(self, key: str) -> int:
        """The value of a key of its architecture; 0 where it is absent, negative or a list."""
        value = self.numbers.get(key)
        return value if isinstance(value, int) and value > 0 else 0

    def per_layer(self, key: str, otherwise: int = 0) -> tuple[int, ...]:
        """The value of a key for each layer, whether the header has one or a list."""
        value = self.numbers.get(key, otherwise)
        if not isinstance(value, tuple):
            value = (value,) * self.layers
        whole = [max(0, int(number)) if isinstance(number, int) else 0 for number in value]
        return tuple((whole + [otherwise] * self.layers)[: self.layers])


def read_model_file(path: Path, *, whole: bool = True) -> ModelFile:
    """Check that `path` is a GGUF model with all its bytes, and say what it holds.

    Args:
        path: the file; of a split model, its first part.
        whole: refuse a file without any tensor, such as a vocabulary alone.

    Raises:
        EngineError: it, or another part of it, is missing, unreadable, not a regular file, not
            GGUF, of a version that llama.cpp does not read, malformed, or cut short. One line
            that names the file.
    """
    first = read_header(path)
    parts = _parts(path, first.values.get("split.count"))
    headers = [first, *(read_header(part) for part in parts[1:])]
    tensors = sum(header.tensors for header in headers)
    if whole and not tensors:
        raise EngineError(f"model file {show_path(path)} holds no tensors: it is not a whole model")
    found = first.values
    architecture = str(found.get("general.architecture", ""))
    elements: Counter[int] = sum((header.elements for header in headers), Counter())
    layers = _positive(found.get(f"{architecture}.block_count")) or 0
    return ModelFile(
        parts=parts,
        size=sum(header.size for header in headers),
        architecture=architecture,
        name=str(found.get("general.name", "")) or path.stem,
        trained_context=_positive(found.get(f"{architecture}.context_length")),
        pooling=_positive(found.get(f"{architecture}.pooling_type")),
        quantisation=_quantisation(found.get("general.file_type"), elements),
        bytes_per_token=_bytes_per_token(found, architecture, frozenset(first.counts)),
        kind=_kind(found, architecture, tensors),
        parameters=elements.total(),
        layers=min(layers, MOST_LAYERS),
        embedding_length=_positive(found.get(f"{architecture}.embedding_length")) or 0,
        vocabulary=first.counts.get("tokenizer.ggml.tokens", 0)
        or _positive(found.get(f"{architecture}.vocab_size"))
        or 0,
        chat_template="tokenizer.chat_template" in found,
        weights=_weights(headers),
        numbers=_numbers(first, f"{architecture}."),
    )


def _kind(found: dict[str, Scalar], architecture: str, tensors: int) -> Kind:
    type_ = found.get("general.type", "model")
    if architecture == "clip" or type_ == "mmproj":
        return Kind.PROJECTOR
    if type_ == "adapter":
        return Kind.ADAPTER
    if type_ != "model" or architecture == "controlvector" or not tensors:
        return Kind.OTHER
    pooling = _positive(found.get(f"{architecture}.pooling_type"))
    if pooling == _RANK:
        return Kind.RERANK
    encodes = any(name in architecture for name in _ENCODERS)
    return Kind.EMBEDDINGS if pooling or encodes else Kind.CHAT


def _weights(headers: list[Header]) -> Weights:
    layers: Counter[int] = sum((header.layers for header in headers), Counter())
    others: Counter[str] = sum((header.others for header in headers), Counter())
    return Weights(
        tuple(layers[number] for number in range(max(layers, default=-1) + 1)),
        others[EMBEDDING],
        others[OUTPUT],
        others[OTHER],
        next(
            (
                TENSOR_TYPES.get(h.embedding_type, "")
                for h in headers
                if h.embedding_type is not None
            ),
            "",
        ),
    )


def _numbers(header: Header, prefix: str) -> dict[str, float | tuple[float, ...]]:
    found: dict[str, float | tuple[float, ...]] = {}
    for key, value in header.values.items():
        if key.startswith(prefix) and not isinstance(value, str):
            found[key.removeprefix(prefix)] = value
    for key, values in header.lists.items():
        if key.startswith(prefix):
            found[key.removeprefix(prefix)] = values
    return found


#: Where one of these is, not every layer remembers every token.
_PARTIAL = ("attention.sliding_window", "attention.kv_lora_rank", "attention.shared_kv_layers")


def _bytes_per_token(
    found: dict[str, Scalar], architecture: str, arrays: frozenset[str]
) -> int | None:
    """Of a plain transformer; see ModelFile."""

    def number(name: str) -> int | None:
        return _positive(found.get(f"{architecture}.{name}"))

    partial = any(f"{architecture}.{name}" in found.keys() | arrays for name in _PARTIAL)
    if partial or any(key.startswith(f"{architecture}.ssm.") for key in found):
        return None
    if f"{architecture}.attention.head_count_kv" in arrays:
        return None
    layers, heads, width = (
        number("block_count"),
        number("attention.head_count"),
        number("embedding_length"),
    )
    if layers is None or heads is None or width is None:
        return None
    kept = number("attention.head_count_kv") or heads
    key = number("attention.key_length") or width // heads
    value = number("attention.value_length") or width // heads
    return layers * kept * (key + value) * 2


def _quantisation(file_type: Scalar | None, weights: Counter[int]) -> str:
    name = _FILE_TYPES.get(file_type) if type(file_type) is int else None
    if name is None and weights:
        name = TENSOR_TYPES.get(weights.most_common(1)[0][0])
    return name or ""


def _positive(value: Scalar | None) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _parts(path: Path, count: Scalar | None) -> tuple[Path, ...]:
    match = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path.name)
    if match is None or not isinstance(count, int) or count != int(match[2]) or count < 2:
        return (path,)
    parts = tuple(
        path.with_name(f"{match[1]}-{i:05}-of-{match[2]}.gguf") for i in range(1, count + 1)
    )
    for part in parts:
        if not part.is_file():
            raise EngineError(
                f"model file {show_path(path)} is split, and its part {part.name} is missing"
            )
    return parts
