"""What a request for the events may ask for."""

from __future__ import annotations

import pytest

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.events.asked import MOST_ANSWERS, Asked, AskedAnswer


def test_what_can_be_asked_for() -> None:
    assert Asked.of({}, admin=False) == Asked()
    asked = Asked.of({"generations": "a, b:3,c:0:1844674407370955161,", "status": "1"}, admin=False)
    assert asked.answers == (
        AskedAnswer("a"),
        AskedAnswer("b", 3),
        AskedAnswer("c", 0, 1844674407370955161),
    )
    assert asked.status
    assert not asked.everybody
    assert Asked.of({"all": "true", "status": "false"}, admin=True) == Asked((), False, True)
    assert Asked.of({"generations": "a:1,a:2"}, admin=False).answers == (AskedAnswer("a", 2),)


@pytest.mark.parametrize(
    ("query", "param", "status"),
    [
        ({"generation": "a"}, "generation", 400),
        ({"generations": "a:x"}, "generations", 400),
        ({"generations": "a:-1"}, "generations", 400),
        ({"generations": "a:1:2:3"}, "generations", 400),
        ({"generations": ":1"}, "generations", 400),
        ({"generations": "a:"}, "generations", 400),
        ({"generations": "a:1:" + "9" * 30}, "generations", 400),
        ({"generations": ",".join(map(str, range(MOST_ANSWERS + 1)))}, "generations", 400),
        ({"status": "yes"}, "status", 400),
        ({"all": "1"}, "all", 403),
    ],
)
def test_what_cannot(query: dict[str, str], param: str, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        Asked.of(query, admin=False)
    assert (caught.value.status, caught.value.param) == (status, param)
