"""What the query of a list says."""

from __future__ import annotations

import pytest

from llcuda_net.errors import InvalidRequest
from llcuda_net.server.http.request import PageQuery


def test_a_page() -> None:
    assert PageQuery.of({}, default=20, most=100) == PageQuery(20, None, ascending=False)
    query = {"limit": "007", "after": "x", "order": "asc"}
    assert PageQuery.of(query, default=20, most=100) == PageQuery(7, "x", ascending=True)


@pytest.mark.parametrize(
    "limit",
    ["", "0", "101", "-1", "1.5", "\u0661", "0" * 8 + "1" + "0" * 12, "0" * 8 + "1" * 5000],
)
def test_limits_that_are_none(limit: str) -> None:
    with pytest.raises(InvalidRequest, match="limit is a number from 1 to 100"):
        PageQuery.of({"limit": limit}, default=20, most=100)


def test_an_order_that_is_none() -> None:
    with pytest.raises(InvalidRequest, match="order is asc or desc"):
        PageQuery.of({"order": "up"}, default=20, most=100)
