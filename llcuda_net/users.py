"""Who uses the server, and what each may."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Classes of requests: none of a class begins while one of a better class could."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class User:
    """One user, and their limits.

    Attributes:
        name: what they are called; all who have no name are one user, "".
        weight: their share of the slots against others'.
        admin: sees and cancels everybody's.
        priority: the best class they may ask for.
        max_running: how many of their requests may run at once.
        max_queued: how many of their requests may wait.
        tokens_per_minute: how many tokens, read and made, they may use.
    """

    name: str = ""
    weight: float = 1.0
    admin: bool = False
    priority: Priority = Priority.HIGH
    max_running: int | None = None
    max_queued: int | None = None
    tokens_per_minute: float | None = None


#: Everybody, where there are no tokens.
ANONYMOUS = User(admin=True)
