"""The entries of a search's and of a list's answer."""

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
        owner: the user that it belongs to, where an admin asked.
    """

    id: str
    score: float
    created: float
    state: str = ""
    model: str = ""
    tokens: int = 0
    preview: str = ""
    text: str = ""
    owner: str = ""

    @classmethod
    def of(cls, found: dict[str, Any]) -> Hit:
        """From a hit as the protocol encodes it."""
        return cls(**found)


@dataclass(frozen=True)
class Entry:
    """A generation in a list.

    Attributes:
        id: with which `Client.attach` finds it.
        state: queued, running, done, failed, cancelled or interrupted.
        created: when it was accepted, in seconds since 1970.
        owner: the user that it belongs to, where an admin asked.
        model: the name of the model that it runs on.
        tokens: how many were generated so far.
        position: of one that is queued: 1 is the next to run.
        preview: the beginning of the prompt, or of the last message.
        text: the beginning of what was generated.
    """

    id: str
    state: str
    created: float
    owner: str = ""
    model: str = ""
    tokens: int = 0
    position: int = 0
    preview: str = ""
    text: str = ""

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Entry:
        """From an entry as the protocol encodes it."""
        return cls(**entry)
