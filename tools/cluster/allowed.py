"""Which errors a cluster in trouble may answer, and what a client then does."""

from __future__ import annotations

from llcuda_protocol import ErrorCode
from tools.campaign.jobs import Job

#: What a server may answer for a while: the same is asked again, of any.
LATER = frozenset({"shutting_down", "overloaded", "storage", "lease_lost"})
#: How a generation may end whose server lost its upstreams.
UPSTREAMS = frozenset(
    {
        ErrorCode.UPSTREAM_UNAVAILABLE,
        ErrorCode.UPSTREAM_ERROR,
        ErrorCode.UPSTREAM_STALLED,
        ErrorCode.TIMEOUT,
    }
)
#: What may come of a request at the level `disk` whose server is gone for good.
GONE = frozenset({ErrorCode.INTERRUPTED, ErrorCode.AHEAD, ErrorCode.UNKNOWN_GENERATION})
#: What a failed response's message has in it, and the code that our own protocol has for that.
MEANS = {
    "lease": "lease_lost",
    "shutting down": "shutting_down",
    "was stopped": "interrupted",
    "as they were": "ahead",
    "there is no piece": "ahead",
    "upstream": "upstream_error",
    "cannot be": "storage",
    "no room": "storage",
}


def is_allowed(code: str, job: Job) -> bool:
    """Whether a job may end with an error of this code."""
    return code in UPSTREAMS or (job.ask.get("level") == "disk" and code in GONE)
