"""What is left out of a conversation that does not fit into the context: its oldest messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Message = dict[str, Any]

#: The part of a context that is left for the answer where the request does not say how long it is.
_FOR_ANSWER = 1 / 8
#: The part of a context that is left for an answer at most.
_MOST_FOR_ANSWER = 1 / 2


def room(context: int, wanted: int | None) -> int:
    """The tokens that a prompt may have.

    Args:
        wanted: tokens that the answer may have; None: it does not say.
    """
    answer = context * _FOR_ANSWER if wanted is None else min(wanted, context * _MOST_FOR_ANSWER)
    return context - int(answer)


async def fitting(
    messages: Sequence[Message],
    most: int,
    count: Callable[[Sequence[Message]], Awaitable[int]],
) -> list[int]:
    """The places of the messages that stay, so that the prompt has at most so many tokens.

    System messages stay, and so does the last turn, though it be too long. Results of tools go with
    the call that they answer. What goes is never more than needs to, message by message.

    Args:
        count: the tokens of the prompt that messages become.
    """
    cuts = _cuts(messages)
    low, high = 0, len(cuts) - 1  # the least cut that fits is among these
    while low < high:
        middle = (low + high) // 2
        left = [messages[place] for place in cuts[middle]]
        if await count(left) <= most:
            high = middle
        else:
            low = middle + 1
    return cuts[low]


def _cuts(messages: Sequence[Message]) -> list[list[int]]:
    """What stays, as places, with ever more left out; the first one is all."""
    last = max(
        (place for place, one in enumerate(messages) if one["role"] == "user"),
        default=len(messages) - 1,
    )
    found = [list(range(len(messages)))]
    for first in range(1, last + 1):
        if messages[first - 1]["role"] == "system" or messages[first]["role"] == "tool":
            continue  # nothing is left out by it, or only half of what belongs together
        system = [place for place in range(first) if messages[place]["role"] == "system"]
        found.append([*system, *range(first, len(messages))])
    return found
