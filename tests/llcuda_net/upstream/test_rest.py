"""How long an upstream rests that takes no more for now."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.upstream.rest import LEAST_REST, LONGEST_REST, Rest


async def test_it_rests_as_long_as_it_asked_to(autojump_clock: object) -> None:
    rest = Rest()
    assert (rest.left, rest.over()) == (0.0, False)
    rest.begin(5.0)
    rest.begin(2.0)  # another answer, of before
    assert rest.left == pytest.approx(5.0)
    await trio.sleep(4.9)
    assert not rest.over()
    await trio.sleep(0.2)
    assert (rest.over(), rest.over(), rest.left) == (True, False, 0.0)
    rest.begin(0.0)
    assert rest.left == pytest.approx(LEAST_REST)


async def test_without_a_time_rests_grow_until_it_has_done_something(
    autojump_clock: object,
) -> None:
    rest = Rest()
    for expected in (1, 2, 4, 8, LONGEST_REST, LONGEST_REST):
        rest.begin(None)
        assert 0.75 * expected <= rest.left <= 1.25 * expected
        await trio.sleep(rest.left + 0.01)
    rest.record_success()
    rest.begin(None)
    assert rest.left <= 1.25
