"""Times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from llcuda_net.config.moments import parse_moment

#: A Wednesday.
NOW = datetime(2026, 12, 2, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2h", "2026-12-02 13:30"),
        ("2h ago", "2026-12-02 13:30"),
        ("1.5d", "2026-12-01 03:30"),
        ("now", "2026-12-02 15:30"),
        ("today", "2026-12-02"),
        ("Yesterday", "2026-12-01"),
        (" yesterday  9:30 ", "2026-12-01 09:30"),
        ("yesterday 09:30:05", "2026-12-01 09:30:05"),
        ("wednesday", "2026-12-02"),
        ("monday 10:00", "2026-11-30 10:00"),
        ("thursday", "2026-11-26"),
        ("9:30", "2026-12-02 09:30"),
        ("2026-11-28", "2026-11-28"),
        ("2026-11-28 10:00", "2026-11-28 10:00"),
        ("2026-11-28T10:00Z", "2026-11-28 10:00"),
        ("2026-11-28T10:00+02:00", "2026-11-28 08:00"),
    ],
)
def test_what_a_text_means(text: str, meant: str) -> None:
    wanted = datetime.fromisoformat(meant).replace(tzinfo=UTC)
    assert parse_moment(text, UTC, NOW) == round(wanted.timestamp()) * 10**9


def test_a_day_is_one_of_its_zone() -> None:
    east = timezone(timedelta(hours=9))  # where it is half past midnight of Thursday
    wanted = datetime(2026, 12, 2, tzinfo=east).timestamp()
    assert parse_moment("yesterday", east, NOW) == round(wanted) * 10**9


@pytest.mark.parametrize(
    "text", ["", " ", "soon", "yesterdays", "25:00", "9:60", "monday9:30", "²h"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_moment(text, UTC, NOW)


def test_what_is_too_far_away() -> None:
    with pytest.raises(OverflowError):
        parse_moment("999999999w", UTC, NOW)
