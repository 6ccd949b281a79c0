"""Times, ages and sizes as people write them on a command line, and as they read them."""

from __future__ import annotations

import argparse
import re
import time
from datetime import UTC, datetime

from llcuda_net.config.sizes import parse_size

#: What SQLite, and so the store, can hold.
_LARGEST = 2**63 - 1
_NS = 10**9
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)


def moment(text: str) -> int:
    """A type for argparse: an age (2h: two hours ago) or a date and time, in nanoseconds.

    A time without a zone is local.
    """
    found = _AGE.fullmatch(text.strip().lower())
    try:
        if found:
            when = time.time_ns() - round(float(found[1]) * _SECONDS[found[2]] * _NS)
        else:
            at = datetime.fromisoformat(text.strip())
            if at.tzinfo is None:
                at = at.astimezone()
            since = at - datetime(1970, 1, 1, tzinfo=UTC)
            when = ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000
        if abs(when) > _LARGEST:
            raise OverflowError
    except (OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"{text!r} is too far away") from None
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be an age (45s, 30m, 2h, 3d, 1w) or a date (2026-11-01, 2026-11-01T14:30), "
            f"not {text!r}"
        ) from None
    return when


def size(text: str) -> int:
    """A type for argparse: a number of bytes (500MB, 2GB, 1.5GiB)."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def iso(nanoseconds: int) -> str:
    """A time for programs: UTC, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, _NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def local(nanoseconds: int) -> str:
    """A time for people: local, to the second."""
    return f"{datetime.fromtimestamp(nanoseconds // _NS).astimezone():%Y-%m-%d %H:%M:%S}"


def bytes_text(count: int) -> str:
    """A size for people."""
    if count < 1000:
        return f"{count} B"
    units = ("kB", "MB", "GB", "TB")
    power = next((p for p in (1, 2, 3) if count < 999.95 * 1000**p), len(units))
    return f"{count / 1000**power:.1f} {units[power - 1]}"


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 result", "12,000 results"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
