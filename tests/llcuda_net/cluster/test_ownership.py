"""Every order of events, in small: nothing that was shown is lost, doubled or mixed.

The controls leave out one rule each, and must be found out: else the model would show nothing.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.cluster.explorer import Explored, WrongError, explore
from tests.support.cluster.ownership import Rules, State, is_over, start, steps, wrong


def explored(rules: Rules) -> Explored[State]:
    return explore(start(rules), partial(steps, rules=rules), wrong, partial(is_over, rules=rules))


@pytest.mark.parametrize(
    "rules",
    [Rules(tokens=1), Rules(under_way=1)],
    ids=["one token, sent twice", "two tokens"],
)
def test_two_servers(rules: Rules) -> None:
    found = explored(rules)
    assert found.stuck == []
    assert found.states > 1000


@pytest.mark.slow
@pytest.mark.parametrize("rules", [Rules(), Rules(servers=3, tokens=1, under_way=1)])
def test_more(rules: Rules) -> None:
    assert explored(rules).stuck == []


@pytest.mark.parametrize(
    "rules",
    [
        Rules(fencing=False),
        Rules(commit_first=False),
        Rules(same_number=False),
        Rules(fence_first=False),
        Rules(servers=3, tokens=1, under_way=1, own_fence=False),
    ],
    ids=["fencing", "commit first", "same number", "fence first", "own fence"],
)
def test_a_rule_that_is_left_out_is_found_out(rules: Rules) -> None:
    with pytest.raises(WrongError):
        explored(rules)
