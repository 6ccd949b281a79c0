"""Where the time of a generation went."""

from __future__ import annotations

from llcuda_net.generation.outcome import Times


def test_the_phases_of_a_request_that_never_ran() -> None:
    times = Times(received=1.0)
    assert times.phases(3.5, 0.0) == {"total": 2500.0}
    times = Times(1.0, dispatched=2.0, rendered=2.5, sent=3.0, first_token=4.0)
    assert times.phases(6.0, 0.0) == {
        "queue": 1000.0,
        "template": 500.0,
        "connect": 500.0,
        "first_token": 1000.0,
        "total": 5000.0,
    }
