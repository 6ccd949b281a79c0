"""What servers tell each other each second, on a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.cluster import leases
from llcuda_net.cluster.owners.loads import Load, ModelLoad, OtherLoad, Served, exchange, read
from llcuda_net.cluster.owners.routing import Offer, choose
from llcuda_net.cluster.owners.sharing import Sharing, running_elsewhere
from tests.support.cluster.any_document import FLOATS, NUMBERS, TEXT, damaged
from tests.support.cluster.database import OVER, Shared, shared
from tests.support.storage.postgres import Postgres

LOAD = Load(
    {"m\0ü": ModelLoad(("alias",), 4, 1, 7, 2.5), "n": ModelLoad()},
    {"http://a:8080": "m\0ü"},
    (Served("n", 1, "ann", 17.0),),
    {"ann": 2},
    1,
)


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Shared]:
    with shared(postgres.new_database()) as out:
        yield out


def say(db: Shared, me: int, load: Load = LOAD) -> dict[int, Load]:
    return {one.server: one.load for one in db.do(lambda db: exchange(db, me, load))}


def test_each_hears_all_others_and_what_they_said_last(db: Shared) -> None:
    one, other, third = db.join(), db.join(), db.join()
    assert say(db, one) == {}
    assert say(db, other, Load()) == {one: LOAD}
    assert say(db, third) == {one: LOAD, other: Load()}
    assert say(db, one, Load()) == {other: Load(), third: LOAD}
    (heard,) = [one for one in db.do(lambda db: exchange(db, other, LOAD)) if one.server == third]
    assert 0 <= heard.age < 60


def test_those_whose_lease_is_over_or_who_are_fenced_are_not_heard(db: Shared) -> None:
    one, other = db.join(), db.join()
    say(db, one)
    assert say(db, other) == {one: LOAD}
    db.do(lambda db: leases.renew(db, one, OVER))
    assert say(db, other) == {}
    db.fence(other, one)
    assert say(db, other) == {}
    assert say(db, one, Load()) == {other: LOAD}  # it may hear, and says nothing
    kept = db.do(lambda db: db.execute("SELECT count(*) FROM loads").fetchone())
    assert kept == (2,)


def test_what_another_version_writes_is_passed_over(db: Shared) -> None:
    one, other = db.join(), db.join()
    say(db, one)
    db.do(lambda db: db.execute("UPDATE loads SET data = '\\x00'"))
    assert say(db, other) == {}


def test_a_model_of_two_servers_has_the_slots_of_both() -> None:
    one, other = ModelLoad(("a", "b"), 4, 1, 7, 2.5), ModelLoad(("b", "c"), 2, 2, 1, 0.5)
    assert one.beside(other) == ModelLoad(("a", "b", "c"), 6, 3, 8, None)


#: Those of a server that says anything.
LOADS = st.builds(
    Load,
    st.dictionaries(
        TEXT,
        st.builds(ModelLoad, st.just(()), NUMBERS, NUMBERS, NUMBERS, FLOATS | st.none()),
        max_size=2,
    ),
    st.dictionaries(TEXT, TEXT, max_size=1),
    st.lists(st.builds(Served, TEXT, st.integers(-1, 3), TEXT, FLOATS), max_size=2).map(tuple),
    st.dictionaries(TEXT, NUMBERS, max_size=1),
    NUMBERS,
)


@given(damaged(LOADS) | LOADS.map(msgspec.msgpack.encode))
def test_what_is_nonsense_is_passed_over_and_the_rest_can_be_reckoned_with(data: bytes) -> None:
    found = read(data)
    if found is None:
        return
    offers = [
        Offer(number, one.slots, one.free, one.queued, one.wait)
        for number, one in enumerate(found.models.values())
    ]
    assert all(one.seconds() >= 0 for one in offers)
    choose(Offer(9, 1, 0), offers, {})
    sharing = Sharing()
    sharing.heard([OtherLoad(1, Load(), 0.0)])
    for one in sharing.heard([OtherLoad(1, found, 0.0)]):
        assert 0 <= one.priority < 3
        assert 0 < one.tokens < 1e19
    assert all(count >= 0 for count in running_elsewhere([OtherLoad(1, found, 0.0)]).values())


@pytest.mark.parametrize(
    "load",
    [
        Load({"m": ModelLoad((), 1, 0, -1)}),  # would be divided by
        Load({"m": ModelLoad((), 1, 0, 0, float("nan"))}),  # would be the least wait
        Load(served=(Served("m", 3, "ann", 1.0),)),  # there is no such class
        Load(served=(Served("m", 1, "ann", float("inf")),)),  # ann would be served never again
    ],
)
def test_numbers_that_cannot_be_are_nonsense(load: Load) -> None:
    assert read(msgspec.msgpack.encode(load)) is None
    assert read(msgspec.msgpack.encode(LOAD)) == LOAD


def test_what_is_nested_too_deeply_is_nonsense() -> None:
    assert read(b"\x97\x80\x80\x90\x80\x00\x90" + b"\x91" * 10_000) is None
