"""Which slot holds the beginning of a prompt already: guessed from text, judged by the result.

A prompt is represented by a chain of hashes, one per block of its text, each over all that is
before it too; so two prompts share as many leading hashes as they share blocks. (vLLM identifies
blocks of tokens that way: W. Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention", SOSP 2023, and its documentation on automatic prefix caching.) No
upstream is asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

#: Characters of a block.
BLOCK = 256
#: Characters that a token has, for estimates; measured on English text with several tokenisers.
CHARACTERS_A_TOKEN = 4.0
#: Tokens of a block, roughly.
TOKENS_A_BLOCK = BLOCK / CHARACTERS_A_TOKEN
#: Characters that an image or a sound counts as; of how many tokens it is the model alone knows.
A_PART = 2048

Chain = tuple[int, ...]


def text_of(prompt: str | Sequence[int] | None, messages: list[dict[str, Any]] | None) -> str:
    """A prompt as one text, in which a longer conversation begins with a shorter one.

    Args:
        messages: as OpenAI's API has them, parts and tool calls included.
    """
    if messages is not None:
        return "".join(turn(one["role"], _content_of(one)) for one in messages)
    if prompt is None or isinstance(prompt, str):
        return prompt or ""
    # Not id by id: a prompt may have millions of them, and everybody waits for this.
    return array("I", prompt).tobytes().decode("latin-1")


def turn(role: str, content: str) -> str:
    """One message as `text_of` has it."""
    return f"\x00{role}\x00{content}"


def _content_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(
            part["text"] if part.get("type") == "text" else _stand_in(part) for part in content
        )
    for call in message.get("tool_calls") or ():
        function = call["function"]
        content += f"\x00{function['name']}\x00{function['arguments']}"
    return content


def _stand_in(part: dict[str, Any]) -> str:
    """A text for an image or a sound: of about as many tokens, and the same for the same one."""
    data = next((value for name, value in sorted(part.items()) if name != "type"), None)
    name = f"{hash(str(data)):x}"
    return (name * (A_PART // len(name) + 1))[:A_PART]


def chain_of(text: str) -> Chain:
    """The hashes of the text's whole blocks; they differ from process to process."""
    chain: list[int] = []
    last: Any = None
    for start in range(0, len(text) - BLOCK + 1, BLOCK):
        last = hash((last, text[start : start + BLOCK]))
        chain.append(last)
    return tuple(chain)


def shared(one: Chain, other: Chain) -> int:
    """How many leading blocks two chains share."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def tokens_in(text: str) -> int:
    """How many tokens a text has, roughly."""
    return int(len(text) / CHARACTERS_A_TOKEN) + 1


class HitRate:
    """How much of what an upstream was expected to have cached it had, by its own count.

    It may have another use for its slots, or no cache at all; then keeping a conversation in one
    place is worth nothing, and costs balance.

    Attributes:
        mean: of the share that was found, 0.0 to 1.0; recent ones weigh more.
    """

    #: Weight of the newest measurement, and the mean below which nothing is expected.
    NEWEST, LEAST = 0.2, 0.5
    #: Every so many expectations one is trusted all the same, since things change.
    RETRY = 16

    def __init__(self) -> None:
        self.mean = 1.0
        self._doubted = 0

    def trusted(self) -> bool:
        """Whether the next expectation counts."""
        if self.mean >= self.LEAST:
            return True
        self._doubted += 1
        return self._doubted % self.RETRY == 0

    def record(self, expected: float, cached: int) -> None:
        """`cached` tokens were found where `expected` were thought to be."""
        if expected > 0:
            found = min(1.0, cached / expected)
            self.mean += self.NEWEST * (found - self.mean)
