"""The made-up language: which token follows a prompt, and how text and token ids map.

A token is a byte (ids 0 to 255) or a word: a space and five hexadecimal digits, three that name a
family and two that count. A prompt's hash chooses the family and each next word counts one up, so a
lost, doubled or foreign token shows at once. After a prompt that ends in a word comes the next word
of its family, so a generation that is continued from what was already emitted goes on the same.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

#: Ids below this are bytes, ids from it on are words.
WORDS = 256
#: Number of token ids.
VOCABULARY = WORDS + (1 << 20)
#: Characters of a word, its space included.
WORD_LENGTH = 6

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


def following(ids: Sequence[int], offset: int = 0, seed: int = 0) -> int:
    """The id of the token number `offset` (from 0) that is generated after a prompt."""
    if ids and ids[-1] >= WORDS:
        last = ids[-1] - WORDS
        family, count = last & ~0xFF, last + 1
    else:
        hashed = zlib.crc32(b"".join(i.to_bytes(3, "big") for i in ids), seed & 0xFFFFFFFF)
        family, count = (hashed & 0xFFF) << 8, 0
    return WORDS + (family | ((count + offset) & 0xFF))


def generation(prompt: str, tokens: int, seed: int = 0) -> str:
    """The text that the synthetic upstream generates after `prompt`, for tests to compare with."""
    ids = tokenise(prompt)
    return detokenise([following(ids, i, seed) for i in range(tokens)])
