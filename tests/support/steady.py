"""Upstreams whose answers last for as long as a test needs them, however slow the machine is.

A test that cancels, kills or looks while an answer is under way must not race with the answer's
end: either the answer is endless, or it is held after some tokens until the test releases it.
"""

from __future__ import annotations

import json
import urllib.request
from contextlib import AbstractContextManager

from tests.support.processes import PATIENCE
from tools import synthetic_upstream

#: So many tokens, at the rate of `endless_upstream`, take more than half an hour.
ENDLESS = 100_000


def endless_upstream(*options: str) -> AbstractContextManager[str]:
    """Its URL; an answer of ENDLESS tokens is not over before the test is."""
    return synthetic_upstream.running("--rate", "50", "--ctx", str(2 * ENDLESS), *options)


def held_upstream(tokens: int, *options: str) -> AbstractContextManager[str]:
    """Its URL; each answer stops after so many tokens, and goes on after `release`."""
    return synthetic_upstream.running("--rate", "200", "--fault", f"hold:{tokens}", *options)


def release(url: str, released: bool = True) -> None:
    """Let what is held go on, and hold nothing any more; or hold again."""
    body = json.dumps({"release": released}).encode()
    urllib.request.urlopen(f"{url}/synthetic", body, timeout=PATIENCE).close()
