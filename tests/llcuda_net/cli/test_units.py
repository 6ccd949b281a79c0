"""Times and sizes of command lines."""

from __future__ import annotations

import time

from llcuda_net.cli.units import bytes_text, moment, size


def test_times_and_sizes() -> None:
    now = time.time_ns()
    for text, seconds in (("45s", 45), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600)):
        assert abs(now - moment(text) - seconds * 10**9) < 5 * 10**9
    assert moment("1970-01-02T00:00:00Z") == 86_400 * 10**9
    assert moment("1970-01-02T00:00:00.000001+00:00") == 86_400 * 10**9 + 1000
    assert moment("2026-11-01") == moment("2026-11-01T00:00")
    assert [size(text) for text in ("5", "1kB", "2GB", "1.5GiB", "3m", "7B")] == [
        5,
        1000,
        2 * 10**9,
        3 << 29,
        3_000_000,
        7,
    ]
    assert [bytes_text(n) for n in (0, 999, 1000, 999_949, 999_950, 2 * 10**9, 10**16)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "2.0 GB",
        "10000.0 TB",
    ]
