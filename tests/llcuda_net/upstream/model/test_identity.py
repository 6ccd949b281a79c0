"""Whether two upstreams serve one model."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from llcuda_net.errors import RequestError
from llcuda_net.upstream.model.identity import PROBE_TIMEOUT, Identity, alike, probe
from llcuda_protocol import ErrorCode
from tests.support.upstream.scripted_upstream import Talker, broken

ONE = {n: -0.5 - n for n in range(20)}
#: The same weights on another processor; and another quantisation of them.
NEAR = {n: value + 0.003 for n, value in ONE.items()}
FAR = {n: value - 0.1 for n, value in ONE.items()}
OTHER = {n + 500: value for n, value in ONE.items()}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Identity("m"), Identity("m"), True),
        (Identity("m"), Identity("n"), False),
        # What the operator says counts above all.
        (Identity("m", "hash", ONE), Identity("n", "hash", ONE), False),
        (Identity("m", "hash", ONE), Identity("m", "other", OTHER), True),
        (Identity("m", "hash", ONE), Identity(None, "hash", ONE), False),
        (Identity(None, "hash", ONE), Identity(None, "hash", OTHER), True),
        (Identity(None, "hash", ONE), Identity(None, "other", ONE), False),
        (Identity(None, "hash", ONE), Identity(None, None, NEAR), True),
        (Identity(None, None, ONE), Identity(None, None, FAR), False),
        (Identity(None, None, ONE), Identity(None, None, OTHER), False),
        # What cannot be told is not the same.
        (Identity(), Identity(), False),
        (Identity(None, None, {}), Identity(None, None, {}), False),
        (Identity(None, "hash"), Identity(None, None, ONE), False),
    ],
)
def test_what_is_one_model(one: Identity, other: Identity, same: bool) -> None:
    assert one.same(other) is other.same(one) is same


def test_signatures_may_differ_in_the_least_likely_tokens() -> None:
    ranked = list(ONE.items())
    assert alike(ONE, dict(ranked[:15]) | {900 + n: -30.0 for n in range(5)})
    assert not alike(ONE, dict(ranked[:14]) | {900 + n: -30.0 for n in range(6)})
    assert alike(dict(ranked[:3]), dict(ranked[:3]))  # a model with fewer tokens than are asked for


async def test_the_probe_makes_one_token_in_the_slot_that_it_is_given() -> None:
    seen: list[dict[str, Any]] = []

    class Seen(Talker):
        async def complete(self, prompt: Any, params: Any, *rest: Any) -> None:
            seen.append(params)
            await super().complete(prompt, params, *rest)

    upstream = Seen()
    upstream.logprobs = ONE
    assert await probe(upstream, 1) == ONE
    assert await probe(upstream) == ONE
    assert [params.get("id_slot") for params in seen] == [1, None]
    assert all(params["n_predict"] == 1 and not params["cache_prompt"] for params in seen)


async def test_an_upstream_without_probabilities_is_well_and_unknown() -> None:
    upstream = Talker()
    upstream.logprobs = None
    assert await probe(upstream) == {}


async def test_an_upstream_that_makes_no_token_has_failed(autojump_clock: trio.abc.Clock) -> None:
    upstream = Talker()
    upstream.silent = True
    start = trio.current_time()
    with pytest.raises(RequestError, match="no token within 20 s") as caught:
        await probe(upstream)
    assert caught.value.code == ErrorCode.UPSTREAM_STALLED
    assert trio.current_time() - start == PROBE_TIMEOUT
    upstream.silent, upstream.away = False, broken("no")
    with pytest.raises(RequestError, match="no"):
        await probe(upstream)
