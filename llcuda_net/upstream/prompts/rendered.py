"""Prompts that a chat template has made, for when the same messages come again.

As when an answer is asked for once more, or several are. A longer conversation is rendered anew:
what a template makes of it need not begin with what it made of the shorter one.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

#: Prompts, characters of all of them together, and seconds for which one is kept.
MOST, SIZE, SECONDS = 64, 4 << 20, 60.0


class RenderedPrompts:
    """The last prompts of one upstream, by what was asked."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._size = 0

    def __repr__(self) -> str:
        return f"<RenderedPrompts {len(self._kept)}, {self._size} characters>"

    def find(self, asked: bytes, now: float) -> str | None:
        """The prompt that was made of a request not long ago; None: there is none."""
        found = self._kept.get(_key(asked))
        return None if found is None or now > found[0] else found[1]

    def keep(self, asked: bytes, prompt: str, now: float) -> None:
        """Keep what was made of a request."""
        key = _key(asked)
        self._forget(key)
        self._kept[key] = now + SECONDS, prompt
        self._size += len(prompt)
        while len(self._kept) > MOST or self._size > SIZE:
            self._forget(next(iter(self._kept)))

    def expire(self, now: float) -> None:
        """Forget those that are not found any more: nobody's text is to stay for nothing."""
        for key in [key for key, (until, _) in self._kept.items() if now > until]:
            self._forget(key)

    def clear(self) -> None:
        """Another template may be there now."""
        self._kept.clear()
        self._size = 0

    def _forget(self, key: bytes) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._size -= len(found[1])


def _key(asked: bytes) -> bytes:
    return blake2b(asked, digest_size=32).digest()
