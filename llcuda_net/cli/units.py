"""Times, ages and sizes as people write them on a command line, and as they read them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from llcuda_net.config.moments import parse_moment
from llcuda_net.config.sizes import parse_size

_NS = 10**9


def moment(text: str) -> int:
    """A type for argparse: an age (2h: two hours ago), a date, a day or a time, in nanoseconds.

    A time without a zone is local.
    """
    try:
        return parse_moment(text)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is too far away") from None
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be an age (45s, 30m, 2h, 3d, 1w), a date (2026-11-01, 2026-11-01 14:30), a day "
            f"(today, yesterday, monday) or a time of it (yesterday 9:30), not {text!r}"
        ) from None


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
