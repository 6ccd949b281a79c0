"""What servers tell each other each second, on a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llcuda_net.cluster import leases
from llcuda_net.cluster.owners.loads import Load, ModelLoad, Served, exchange
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
