"""How much of the disk a user's files may take, and the outputs of their batches before those are
files.
"""

from __future__ import annotations

from llcuda_net.config.users import User
from llcuda_net.server.http.errors import RATE_LIMIT, HttpError
from llcuda_net.storage.objects import files
from llcuda_net.storage.objects.interface import Database


def quota_of(user: User, default: int) -> int:
    """How many bytes a user's files may take."""
    return default if user.max_file_bytes is None else user.max_file_bytes


def check_quota(db: Database, owner: str, quota: int) -> None:
    """Refuse what would take more than a user may have.

    Raises:
        HttpError: they have more than that, or just as much.
    """
    db.alone(f"files of {owner}")
    if (error := excess(db, owner, quota)) is not None:
        raise error


def excess(db: Database, owner: str, quota: int) -> HttpError | None:
    """The error of a user who has as much as they may have, or more; None: they have less."""
    used = files.used(db, owner)
    if used < quota:
        return None
    return HttpError(
        429,
        f"your files and the outputs of your batches take {used:,} bytes, and may take {quota:,}: "
        "delete some files first",
        type=RATE_LIMIT,
        code="storage_quota_exceeded",
        headers={"x-should-retry": "false"},
    )
