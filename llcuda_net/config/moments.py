"""Times as people and programs write them: an age, or a date with or without a time."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, tzinfo

#: What SQLite, and so the store, can hold.
LARGEST = 2**63 - 1
_NS = 10**9
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([smhdw])", re.ASCII)


def parse_moment(text: str, zone: tzinfo | None = None) -> int:
    """Nanoseconds since 1970 of an age (2h: two hours ago) or a date and time.

    Args:
        zone: of a time that names none; None: local time.

    Raises:
        OverflowError: it is too far away.
        ValueError: it is neither.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if found:
        when = time.time_ns() - round(float(found[1]) * _SECONDS[found[2]] * _NS)
    else:
        at = datetime.fromisoformat(text.strip())
        if at.tzinfo is None:
            try:
                at = at.astimezone() if zone is None else at.replace(tzinfo=zone)
            except OSError:
                raise OverflowError from None
        since = at - datetime(1970, 1, 1, tzinfo=UTC)
        when = ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000
    if abs(when) > LARGEST:
        raise OverflowError
    return when
