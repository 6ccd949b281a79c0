"""Which models are loaded, and which make room: by a table, and with any models at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.upstream.router.listing import Status
from llcuda_net.upstream.router.plan import PAUSE, STAY, Model, plan

NOW = 1000.0


def wanted(name: str, since: float = 1.0) -> Model:
    return Model(name, Status.UNLOADED, NOW - since)


def loaded(
    name: str,
    since: float = 100.0,
    used: float = 50.0,
    *,
    busy: bool = False,
    leaving: bool = False,
) -> Model:
    return Model(name, Status.LOADED, None, NOW - since, NOW - used, busy=busy, leaving=leaving)


def test_what_is_wanted_is_loaded_where_there_is_room() -> None:
    models = [wanted("a", 1), wanted("b", 2), Model("c", Status.UNLOADED), loaded("d")]
    assert plan(models, None, NOW) == (("b", "a"), {})
    assert plan(models, 3, NOW) == (("b", "a"), {})
    assert plan(models, 2, NOW) == (("b", "a"), {"d": "a"})


def test_an_idle_one_makes_room_the_least_used_first() -> None:
    models = [wanted("w"), loaded("a", used=10), loaded("b", used=20), loaded("c", busy=True)]
    assert plan(models, 3, NOW) == (("w",), {"b": "w"})


def test_one_that_has_just_worked_stays_for_a_while() -> None:
    models = [wanted("w"), loaded("a", since=STAY - 1, used=PAUSE / 2)]
    assert plan(models, 1, NOW) == ((), {})
    assert plan(models, 1, NOW + 1) == (("w",), {"a": "w"})  # its pause is over


def test_one_that_works_leaves_and_is_not_cut_off() -> None:
    models = [wanted("w"), loaded("a", used=0, busy=True)]
    assert plan(models, 1, NOW) == ((), {"a": "w"})
    assert plan([wanted("w"), loaded("a", since=STAY - 1, used=0, busy=True)], 1, NOW) == ((), {})


def test_who_leaves_already_is_not_changed_for_another() -> None:
    models = [wanted("w"), loaded("a", busy=True, leaving=True), loaded("b", used=99)]
    assert plan(models, 2, NOW) == ((), {"a": "w"})


def test_who_has_made_room_gets_nothing_while_it_ends() -> None:
    models = [Model("w", Status.LOADING), loaded("a", leaving=True), wanted("x")]
    assert plan(models, 1, NOW) == ((), {"a": "w"})
    assert plan(models, 2, NOW) == (("x",), {"a": "x"})
    assert plan(models, 3, NOW) == (("x",), {})


def test_one_that_is_being_loaded_never_leaves() -> None:
    assert plan([wanted("w"), Model("a", Status.LOADING)], 1, NOW) == ((), {})


_times = st.floats(0, 200)


@st.composite
def _models(draw: st.DrawFn) -> list[Model]:
    return [
        Model(
            str(number),
            draw(st.sampled_from(Status)),
            draw(st.none() | _times),
            draw(_times),
            draw(_times),
            busy=draw(st.booleans()),
            leaving=draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 8)))
    ]


@given(_models(), st.none() | st.integers(1, 6))
def test_no_more_is_loaded_than_there_is_room_for(models: list[Model], limit: int | None) -> None:
    by_name = {one.name: one for one in models}
    found = plan(models, limit, 200.0)
    running = sum(one.status is not Status.UNLOADED for one in models)
    gone = sum(not by_name[name].busy for name in found.leave)
    if limit is not None:
        assert running + len(found.load) - gone <= max(limit, running)
    assert len(set(found.load)) == len(found.load)
    for name in found.load:
        assert by_name[name].status is Status.UNLOADED
        assert by_name[name].wanted_since is not None
    for name, other in found.leave.items():
        assert by_name[name].status in (Status.LOADED, Status.SLEEPING, Status.LOADING)
        assert other == "another" or by_name[other].status is not Status.LOADED
