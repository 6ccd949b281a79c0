"""Times as people and programs write them: an age, or a date or day with or without a time."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as time_of_day

#: What SQLite, and so the store, can hold.
LARGEST = 2**63 - 1
_NS = 10**9
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([smhdw])(?: ago)?", re.ASCII)
_WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
#: A day by its name, or a time of the day, or both.
_DAY = re.compile(
    rf"(?=.)(today|yesterday|{'|'.join(_WEEK)})?(?:(?:^|[ t])(\d{{1,2}}):(\d\d)(?::(\d\d))?)?",
    re.ASCII,
)


def parse_moment(text: str, zone: tzinfo | None = None, now: datetime | None = None) -> int:
    """Nanoseconds since 1970 of an age (2h: two hours ago), a date and time, or a day by name.

    A weekday is the last one that was, or today; a time without a day is today's.

    Args:
        zone: of a time that names none; None: local time.
        now: the present, with a zone; None: that of the clock.

    Raises:
        OverflowError: it is too far away.
        ValueError: it is neither.
    """
    words = " ".join(text.lower().split())
    if words == "now":
        words = "0s"
    if found := _AGE.fullmatch(words):
        present = time.time_ns() if now is None else round(now.timestamp() * _NS)
        when = present - round(float(found[1]) * _SECONDS[found[2]] * _NS)
    else:
        named = _DAY.fullmatch(words)
        at = _of_day(named, zone, now) if named else datetime.fromisoformat(text.strip())
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


def _of_day(found: re.Match[str], zone: tzinfo | None, now: datetime | None) -> datetime:
    """The moment that a day by its name, or a time of the day, means; without a zone."""
    today = (now or datetime.now(UTC)).astimezone(zone).date()
    name, hour, minute, second = found.groups()
    back = 0
    if name == "yesterday":
        back = 1
    elif name in _WEEK:
        back = (today.weekday() - _WEEK.index(name)) % 7
    at = time_of_day(int(hour or 0), int(minute or 0), int(second or 0))
    return datetime.combine(today - timedelta(days=back), at)
