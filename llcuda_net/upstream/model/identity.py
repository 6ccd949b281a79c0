"""Whether two upstreams serve the same model.

By the identity that the operator gave them; else by the hashes of their files, where both are
known; else by the log-probabilities that they give for one fixed prompt, which no two models share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio

from llcuda_net.errors import UpstreamStalled
from llcuda_net.upstream.interface import CompletionEvent, Upstream

#: The prompt of the probe, and how many of the likeliest next tokens it returns.
PROBE_PROMPT = "The sea was calm that morning, and the old man counted his nets: one, two, three,"
PROBE_TOP = 20
#: The likeliest of these that two must have in common, how many in all, and how far a
#: log-probability may differ: the same weights on another processor differ in the third digit,
#: another quantisation in the first.
_LEADING = 5
_LEAST_COMMON = 15
_TOLERANCE = 0.02
#: Seconds for an answer of one token.
PROBE_TIMEOUT = 20.0

Signature = dict[int, float]


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of an upstream's model.

    Attributes:
        given: by the operator.
        hash: of its file.
        signature: log-probabilities by token id, of what may follow the probe's prompt.
    """

    given: str | None = None
    hash: str | None = None
    signature: Signature | None = None

    def same(self, other: Identity) -> bool:
        """Whether both are one model; where that is not known, they are not."""
        if self.given is not None or other.given is not None:
            return self.given == other.given
        if self.hash and other.hash:
            return self.hash == other.hash
        if self.signature and other.signature:
            return alike(self.signature, other.signature)
        return False


def alike(one: Signature, other: Signature) -> bool:
    """Whether two signatures are of the same weights."""
    common = one.keys() & other.keys()
    wanted = min(_LEAST_COMMON, len(one), len(other))
    return (
        len(common) >= wanted
        and _leading(one) <= common
        and _leading(other) <= common
        and all(abs(one[token] - other[token]) <= _TOLERANCE for token in common)
    )


def _leading(signature: Signature) -> set[int]:
    return set(sorted(signature, key=lambda token: -signature[token])[:_LEADING])


async def probe(upstream: Upstream, slot: int | None = None) -> Signature:
    """Have an upstream make one token, which shows that it works and which model it has.

    Raises:
        RequestError: it makes none.
    """
    found: list[CompletionEvent] = []
    params: dict[str, Any] = {
        "n_predict": 1,
        "temperature": 0,
        "n_probs": PROBE_TOP,
        "cache_prompt": False,
    }
    if slot is not None:
        params["id_slot"] = slot
    with trio.move_on_after(PROBE_TIMEOUT):
        await upstream.complete(PROBE_PROMPT, params, found.extend, lambda: None)
        for event in found:
            for token in event.completion_probabilities or ():
                top = token.top_logprobs or token.top_probs
                return {one.id: one.logprob for one in top if one.logprob is not None}
        return {}
    raise UpstreamStalled(f"no token within {PROBE_TIMEOUT:g} s", retry=True)
