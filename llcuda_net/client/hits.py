"""What a search finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hit:
    """A stored result that is near the text that was searched for.

    Attributes:
        id: of the result.
        score: cosine of the angle between the embeddings: 1 for the same direction.
        created: when its generation was accepted, in seconds since 1970.
        state: done, failed, cancelled or interrupted.
        model: the name of the model that it ran on.
        tokens: how many were generated.
        preview: the beginning of the prompt, or of the last message.
        text: the beginning of what was generated.
    """

    id: str
    score: float
    created: float
    state: str = ""
    model: str = ""
    tokens: int = 0
    preview: str = ""
    text: str = ""

    @classmethod
    def of(cls, found: dict[str, Any]) -> Hit:
        """From a hit as the protocol has it."""
        return cls(**found)
