"""A tokenizer of bytes in Hugging Face's format: the tools want one, and nothing is to be fetched.

It is byte-level BPE without merges: each of the 256 bytes is a token, so every text can be encoded
and comes back the same. Bytes that are no printable character stand for others, as in GPT-2's
vocabulary (Radford et al., Language Models are Unsupervised Multitask Learners, 2019).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Bytes that stand for themselves, as Latin-1 characters.
_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}


def alphabet() -> list[str]:
    """The character that stands for each byte, in order of the bytes."""
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in _PRINTABLE else next(others)) for byte in range(256)]


def write(folder: Path) -> None:
    """Write it into a folder, which AutoTokenizer.from_pretrained then reads."""
    folder.mkdir(parents=True, exist_ok=True)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {**level, "use_regex": False},
        "post_processor": None,
        "decoder": {**level, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {piece: number for number, piece in enumerate(alphabet())},
            "merges": [],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1_000_000,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
