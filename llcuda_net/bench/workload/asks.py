"""What a load asks: sessions of one turn or several, and what each turn sends.

A moment of a schedule starts a session. Most works have sessions of one turn; where there are more,
each sends the whole conversation so far, with the answers that really came, and is meant for the
end of the answer before it plus its user's think time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        prompt: sent as it is, or as a chat of one message; not looked at where one of the next two
            is given.
        messages: a chat.
        texts: to be embedded, in place of an answer.
        max_tokens: of the answer; None: as the run's parameters say.
        prompt_tokens: how long the whole prompt is meant to be; None: nobody said.
        wanted_tokens: how long the answer was meant to be before a cap; None: `max_tokens`.
    """

    prompt: str = ""
    messages: Sequence[dict[str, Any]] | None = None
    texts: Sequence[str] | None = None
    max_tokens: int | None = None
    prompt_tokens: int | None = None
    wanted_tokens: int | None = None


class Session(Protocol):
    """The turns of one user, one after the other."""

    @property
    def several(self) -> bool:
        """Whether it may have more turns than one: its records then carry its number."""

    def first(self) -> Ask:
        """What is asked at the session's moment."""

    def following(self, answer: Answer, record: Record) -> tuple[float, Ask] | None:
        """What is asked after an answer, and seconds of think time before; None: it is over."""


class Work(Protocol):
    """What a run sends, by the number of the moment that starts it: the same every time."""

    @property
    def described(self) -> str:
        """In words, for a report."""

    def session(self, number: int) -> Session:
        """The session of a number."""

    def for_run(self, run: int) -> Work:
        """What another run of the same measurement sends."""


@dataclass(frozen=True, slots=True)
class Single:
    """A session of one turn."""

    ask: Ask
    several: bool = False

    def first(self) -> Ask:
        """See Session."""
        return self.ask

    def following(self, answer: Answer, record: Record) -> tuple[float, Ask] | None:
        """See Session."""
        return None
