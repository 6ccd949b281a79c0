"""The made-up language: which token follows a prompt, and how text and token ids map.

A token is a byte (ids 0 to 255) or a word: a space and five hexadecimal digits. Each follows from a
hash of all ids before it, those of the prompt included. So a generation that is continued from what
was emitted goes on the same, and after a lost, doubled or foreign token nothing is as expected.

Where a prompt asks for it, as [[split:K]], about one in K words is a character instead, an emoji of
four bytes: four tokens, whose text llama-server sends only with the last one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice

from .faults import in_prompt

#: Ids below this are bytes, ids from it on are words.
WORDS = 256
#: Number of token ids.
VOCABULARY = WORDS + (1 << 20)
#: Characters of a word, its space included.
WORD_LENGTH = 6
#: Bytes that every emoji begins with; one from 0x80 to 0xBF follows.
_EMOJI = b"\xf0\x9f\x98"
_WORD = re.compile(rb" [0-9a-f]{5}(?![0-9a-f])")


def tokenise(text: str) -> list[int]:
    """The ids of a text."""
    data = text.encode("utf-8", "surrogatepass")
    ids: list[int] = []
    end = 0
    for match in _WORD.finditer(data):
        ids += data[end : match.start()]
        ids.append(WORDS + int(match[0][1:], 16))
        end = match.end()
    ids += data[end:]
    return ids


def piece(token: int) -> bytes:
    """The bytes of a token id."""
    return bytes([token]) if token < WORDS else b" %05x" % (token - WORDS)


def detokenise(ids: Sequence[int]) -> str:
    """The text of token ids."""
    return b"".join(map(piece, ids)).decode("utf-8", "replace")


def following(ids: Sequence[int], seed: int = 0, split: int = 0) -> Iterator[int]:
    """The ids that are generated after these, without end; `split` is the K of [[split:K]]."""
    state = zlib.crc32(b"".join(i.to_bytes(3, "big") for i in ids), seed & 0xFFFFFFFF)
    begun = _begun(ids) if split else 0
    while True:
        # Multiplied, since a CRC goes in small circles when it is fed to itself.
        mixed = state * 0x9E3779B1 >> 8
        if begun:
            token = _EMOJI[begun] if begun < len(_EMOJI) else 0x80 | mixed & 0x3F
            begun = (begun + 1) % (len(_EMOJI) + 1)
        elif split and (mixed >> 20 & 0xFFF) % split == 0:
            token, begun = _EMOJI[0], 1
        else:
            token = WORDS + (mixed & 0xFFFFF)
        yield token
        state = zlib.crc32(token.to_bytes(3, "big"), state)


def _begun(ids: Sequence[int]) -> int:
    """How many tokens of an unfinished emoji they end with."""
    for length in range(len(_EMOJI), 0, -1):
        if list(ids[-length:]) == list(_EMOJI[:length]):
            return length
    return 0


def generated(prompt: str, tokens: int, seed: int = 0) -> list[int]:
    """The ids that the synthetic upstream generates after `prompt`, for tests to compare with."""
    return list(islice(following(tokenise(prompt), seed, split_of(prompt)), tokens))


def generation(prompt: str, tokens: int, seed: int = 0) -> str:
    """The text of `generated`; of a character that is not whole, nothing."""
    return whole_text(generated(prompt, tokens, seed))


def whole_text(ids: Sequence[int]) -> str:
    """The text of generated ids, without an unfinished character at its end."""
    return detokenise(ids[: len(ids) - _begun(ids)])


def split_of(prompt: str) -> int:
    """The K of [[split:K]] in a prompt; 0 where there is none."""
    fault = in_prompt(prompt)
    return fault.after if fault is not None and fault.kind == "split" else 0
