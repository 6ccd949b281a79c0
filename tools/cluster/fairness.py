"""Whether two users get the same, where both want more than there is, at different servers.

One of them has three times as many requests. Each server alone would serve whom it has; together
they must give both the same, within what an exchange each second allows.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import trio

import llcuda_net
from llcuda_net.errors import LlcudaError

#: The users of a campaign, and their tokens: who works while things go wrong, and these two.
WORK, EAGER, MODEST = "work", "eager", "modest"
_TOKENS = {name: f"{name}-{'x' * 20}" for name in (WORK, EAGER, MODEST)}
#: Requests of each per slot of all upstreams.
_WANT = {EAGER: 3, MODEST: 1}
#: Seconds until shares are even, and for which they are looked at.
WARM_UP, WINDOW = 5.0, 8.0
#: Times that shares are looked at, until they are even: a busy machine takes longer to get there.
LOOKS = 4
#: Tokens of a request: short ones, so that many slots fall free while it is measured.
_LENGTH = 30
#: The least that the one may have of what the other has.
LEAST = 0.6


def token_of(user: str) -> str:
    """The token of a user."""
    return _TOKENS[user]


def write_users(path: Path) -> None:
    """Write the token file."""
    path.touch(0o600)
    lines = [f"{token} name={name}" for name, token in _TOKENS.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


async def measure(addresses: Sequence[str], slots: int, rng: random.Random) -> Counter[str]:
    """Have both users ask for more than there is: the tokens that each has got in a while, the
    first one in which both got about the same, or the last.

    Args:
        addresses: of the servers; each user asks half of them.
        slots: of all upstreams.
    """
    got: Counter[str] = Counter()
    half = max(1, len(addresses) // 2)
    asked = {EAGER: addresses[:half], MODEST: addresses[-half:]}
    async with trio.open_nursery() as nursery:
        for user, want in _WANT.items():
            for number in range(want * slots):
                address = asked[user][number % half]
                nursery.start_soon(_ask, address, user, got, rng.random())
        await trio.sleep(WARM_UP)
        for _ in range(LOOKS):
            before = got.copy()
            await trio.sleep(WINDOW)
            if unfair(found := got - before) is None:
                break
        nursery.cancel_scope.cancel()
    return found


async def _ask(address: str, user: str, got: Counter[str], name: float) -> None:
    """One request after the other; none is kept."""
    count = 0
    while True:
        try:
            async with llcuda_net.connect(address, token=token_of(user)) as client:
                while True:
                    count += 1
                    what = f"fair {name}, {count}"
                    async with client.generate(raw=what, n_predict=_LENGTH, level="memory") as one:
                        async for _ in one:
                            got[user] += 1
        except LlcudaError:
            await trio.sleep(0.5)


def unfair(found: Counter[str]) -> str | None:
    """What is wrong with the shares; None: nothing."""
    eager, modest = found[EAGER], found[MODEST]
    if min(eager, modest) >= LEAST * max(eager, modest) > 0:
        return None
    return f"one user got {eager} tokens with three times the requests, the other {modest}"
