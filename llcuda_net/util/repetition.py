"""Finding an answer that repeats itself while it is made, as small models do without end.

Tokens repeat a block of p tokens as long as each equals the one p before it. For every p up to the
longest, a counter holds how many tokens in a row did; one token changes 64 counters, which takes
about 3 µs. Tables and long numbers repeat for good reasons, so the finding is for a notice, never a
reason to stop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

#: Tokens of the longest block that is looked for, and how many tokens must be made of it.
LONGEST = 64
WINDOW = 512


class RepetitionDetector:
    """Looks for a block of tokens that repeats through the last `window` tokens.

    Args:
        longest: tokens of the longest block.
        window: tokens that must be made of one block, the last repetition cut off or not.
    """

    def __init__(self, longest: int = LONGEST, window: int = WINDOW) -> None:
        self._window = window
        self._latest: deque[Hashable] = deque(maxlen=longest)  # newest first
        self._equal = [0] * longest  # for blocks of 1, 2, … tokens
        self._count = 0

    def __repr__(self) -> str:
        return f"<RepetitionDetector {self._count} tokens, most equal {max(self._equal)}>"

    def add(self, token: Hashable) -> int | None:
        """Take the next token; returns the shortest repeated block's length, None without one.

        Args:
            token: an id, or any other value that is equal for equal tokens.
        """
        equal = self._equal
        for index, earlier in enumerate(self._latest):
            equal[index] = equal[index] + 1 if earlier == token else 0
        self._latest.appendleft(token)
        self._count += 1
        if self._count < self._window or max(equal) < self._window - len(equal):
            return None
        for index, count in enumerate(equal):
            if count + index + 1 >= self._window:
                return index + 1
        return None


def notice(block: int) -> str:
    """What to say of an answer in which a block of so many tokens was found."""
    tokens = "1 token" if block == 1 else f"{block} tokens"
    return (
        f"the answer repeats itself: its last {WINDOW} tokens are one block of {tokens},"
        " again and again"
    )
