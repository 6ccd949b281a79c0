"""Whether a run measured the server, or only this client: what is out of bounds is INVALID."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llcuda_net.batch.record import Outcome, Record, measured
from llcuda_net.bench.statistics.censored import cut_share
from llcuda_net.bench.workload.schedules import Schedule
from llcuda_net.util.numbers import plain, three_digits


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a valid run.

    Attributes:
        lag: greatest p99 of the dispatch lag in seconds.
        rate: least share of an open schedule's requests that must be sent in its time.
        cpu: greatest share of a core that the client may take: it runs on one.
        ceiling: greatest share of what the client can do, by its self-test.
        cut: greatest share of the sent requests that the measurement's end may cut.
    """

    lag: float = 0.010
    rate: float = 0.98
    cpu: float = 0.85
    ceiling: float = 0.7
    cut: float = 0.05


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What this client reached against a server that does nothing, in a self-test.

    Attributes:
        requests, tokens: per second.
        ttft: median seconds to the first token, which are all the client's and the socket's; None:
            not measured, as `lag`.
        lag: p99 of the dispatch lag in seconds, at the rate that is to be measured.
        cpu_share: of a core, that it took to read so many tokens.
    """

    requests: float
    tokens: float
    ttft: float | None
    lag: float | None
    cpu_share: float = 0.0

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {
            "requests_per_s": self.requests,
            "tokens_per_s": self.tokens,
            "ttft_ms": None if self.ttft is None else self.ttft * 1e3,
            "lag_p99_ms": None if self.lag is None else self.lag * 1e3,
            "cpu_share": self.cpu_share,
        }


def lag_p99(records: Sequence[Record]) -> float:
    """The 99th percentile of the lag in seconds; of fewer than 100 requests their greatest."""
    lags = sorted(r.lag for r in records if not math.isnan(r.sent))
    return lags[math.ceil(0.99 * len(lags)) - 1] if lags else 0.0


def problems(
    records: Sequence[Record],
    schedule: Schedule,
    *,
    warmup: float,
    cpu_share: float,
    bounds: Bounds | None = None,
    ceiling: Ceiling | None = None,
    tokens_per_s: float | None = None,
) -> list[str]:
    """Why the run does not count: one line each, none if it does.

    Args:
        records: all of the run's.
        cpu_share: of a core, that this process took while it ran.
        tokens_per_s: what it measured, to be compared with the ceiling.
    """
    bounds = bounds or Bounds()
    found: list[str] = []
    counted = measured(records)
    if not counted:
        return ["no request was sent after the warm-up: measure longer"]
    if not any(record.done for record in counted):
        errors = sorted({record.error for record in counted if record.error})
        return [f"no request was answered: {errors[0] if errors else 'the time was too short'}"]
    if (cut := cut_share(counted)) > bounds.cut:
        found.append(
            f"{cut:.0%} of the requests were cut when it ended, over {bounds.cut:.0%}: how long"
            " they would have taken is not known (give them more time to end: --drain)"
        )
    lag = lag_p99(counted)
    if lag > bounds.lag:
        found.append(
            f"the client could not keep up: p99 of the dispatch lag is {lag * 1e3:.1f} ms,"
            f" over {plain(bounds.lag * 1e3)} ms"
        )
    if schedule.moments is not None:
        wanted = sum(moment >= warmup for moment in schedule.moments)
        in_time = sum(r.sent <= schedule.seconds + bounds.lag for r in counted)
        wanted = min(wanted, len(counted)) if in_time == len(counted) else wanted
        if in_time < bounds.rate * wanted:
            found.append(
                f"the client could not keep up: {in_time} of {wanted} requests were sent in time"
            )
    if cpu_share > bounds.cpu:
        found.append(
            f"the client took {cpu_share:.0%} of its core, over {bounds.cpu:.0%}:"
            " use more ranks (llcuda bench scaling), or ask for less"
        )
    if ceiling is not None and tokens_per_s is not None:
        # Both, since the server of the self-test could be slower than this client.
        busy = cpu_share >= bounds.ceiling * ceiling.cpu_share
        if busy and tokens_per_s > bounds.ceiling * ceiling.tokens:
            found.append(
                f"{tokens_per_s:,.0f} tokens/s is more than {bounds.ceiling:.0%} of the"
                f" {ceiling.tokens:,.0f} that this client can read at all by this protocol"
            )
    return found


def shared(addresses: Sequence[str], cores: int) -> list[str]:
    """The caution that server and client compete for the same cores, where they do."""
    local = ("127.", "localhost", "[::1]", "http://127.", "http://localhost", "http://[::1]")
    if any(address.startswith(local) for address in addresses):
        where = f"the server is on this machine: it and this client share {cores} cores,"
        return [f"{where} and each slows the other"]
    return []


def cautions(records: Sequence[Record], schedule: Schedule) -> list[str]:
    """What a reader of the figures must know, though they count."""
    found: list[str] = []
    counted = measured(records)
    lost = [r for r in counted if not r.done and r.outcome is not Outcome.CUT]
    if lost:
        kinds = sorted({f"{r.outcome} ({r.error})" for r in lost})
        more = f" and {len(kinds) - 1} more kinds" if len(kinds) > 1 else ""
        found.append(
            f"{len(lost)} of {len(counted)} requests got no answer: {kinds[0]}{more}."
            " What timed out is in the percentiles as at least so long; what was refused or failed"
            " is not"
        )
    cut = sum(r.outcome is Outcome.CUT for r in counted)
    if cut:
        found.append(
            f"{cut} of {len(counted)} requests were under way when it ended, and cut: they are in"
            " the percentiles as at least so long (Kaplan and Meier 1958)"
        )
    uncounted = sum(r.done and not r.counted for r in counted)
    if uncounted:
        found.append(
            f"{uncounted} answers came without `usage`: their tokens are the pieces that came"
        )
    if schedule.closed:
        found.append(
            "closed loop: no request is sent while the server stalls, so stalls are under-counted;"
            " an open schedule (--rate) shows them"
        )
    done = [r for r in counted if r.done]
    if len(done) >= 40:
        half = len(done) // 2
        first, second = (
            np.median([r.latency for r in part]) for part in (done[:half], done[half:])
        )
        if second > 1.5 * first:
            found.append(
                f"latency rose while it ran (median {three_digits(first * 1e3)} ms, then"
                f" {three_digits(second * 1e3)} ms): the queue was growing, and a longer run gives"
                " more"
            )
    return found
