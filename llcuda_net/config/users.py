"""A user of the server, their limits, and the classes of requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum


class Priority(IntEnum):
    """Classes of requests: none of a class starts while one of a better class could."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


#: Stands between the name of a token's user and the id of one of theirs.
_FORWARDED = "/"
#: By the names that files and requests use, best first.
PRIORITIES = {priority.name.lower(): priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class User:
    """One user, and their limits.

    Attributes:
        name: all who have no name are one user, "".
        weight: their share of the slots against others'.
        admin: whether they may see and cancel everybody's requests.
        priority: the best class they may ask for.
        max_running: how many of their requests may run at once.
        max_queued: how many of their requests may wait.
        tokens_per_minute: how many tokens, read and made, they may use.
        max_file_bytes: how many bytes their files may take; None: as the server's settings say.
        forwards: whether requests with this token may name a user of their own.
    """

    name: str = ""
    weight: float = 1.0
    admin: bool = False
    priority: Priority = Priority.HIGH
    max_running: int | None = None
    max_queued: int | None = None
    tokens_per_minute: float | None = None
    max_file_bytes: int | None = None
    forwards: bool = False


#: Everybody, where there is no token file.
ANONYMOUS = User(admin=True)


def forwarded(user: User, id_: str) -> User:
    """One of the users for whom the holder of a token that forwards asks, with the token's limits.

    Their names are none that a token file can hold. None of them is an admin.
    """
    return replace(user, name=f"{user.name}{_FORWARDED}{id_}", admin=False, forwards=False)


def forwarder_of(name: str) -> tuple[str, str] | None:
    """The user whose token forwarded this one, and the id; None where it is no such name."""
    before, slash, id_ = name.partition(_FORWARDED)
    return (before, id_) if slash else None


def view_of(user: User) -> str | None:
    """The owner whose generations a user may see; None stands for everybody's."""
    return None if user.admin else user.name
