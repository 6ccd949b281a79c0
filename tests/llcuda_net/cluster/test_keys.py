"""Idempotency keys over the cluster, on a PostgreSQL, in each order in which claims can meet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from llcuda_net.cluster import keys, leases
from llcuda_net.cluster.keys import Held, Key
from llcuda_net.cluster.mirror import Mirror
from llcuda_net.cluster.portions import Contents, Started
from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import Forgotten, encode
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept
from tests.support.cluster.database import OVER, Shared, shared
from tests.support.storage.interleaving import standing, wait_for_lock
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result


@pytest.fixture
def db(postgres: Postgres) -> Iterator[Shared]:
    with shared(postgres.new_database()) as out:
        yield out


def key(generation: str, name: str = "k", owner: str = "ann") -> Key:
    return Key(owner, name, generation, b"hash of " + generation.encode())


def claim(db: Shared, me: int, *wanted: Key, gone: tuple[str, ...] = ()) -> dict[str, str] | None:
    return db.do(lambda db: keys.claim(db, me, wanted, gone))


def meaning(db: Shared, name: str = "k", owner: str = "ann") -> str | None:
    found = db.do(lambda db: keys.find(db, owner, name))
    return None if found is None else found.generation


def put(db: Shared, generation: str, state: str, name: str = "k") -> None:
    store = PostgresStore(db.url, write=True)
    try:
        store.put([result(1, id=generation, state=state, key=name, owner="ann")])
    finally:
        store.close()


def test_the_first_has_a_key_and_each_owner_keys_of_his_own(db: Shared) -> None:
    one, other = db.join(), db.join()
    assert claim(db, one, key("g1")) == {}
    assert claim(db, one, key("g1")) == {}  # the answer was lost
    assert claim(db, other, key("g2")) == {"g2": "g1"}
    assert claim(db, other, key("g3", owner="bob"), key("g4", "k\0ü")) == {}
    assert db.do(lambda db: keys.find(db, "ann", "k")) == Held(
        "g1", b"hash of g1", one, False, False
    )
    assert meaning(db, "k\0ü") == "g4"
    assert meaning(db, "k\0") is None


def test_of_one_key_twice_in_a_batch_the_last_one_counts(db: Shared) -> None:
    one = db.join()
    assert claim(db, one, key("g1"), key("g2", "l"), key("g3")) == {"g1": "g3"}
    assert (meaning(db), meaning(db, "l")) == ("g3", "g2")


def test_the_second_waits_for_the_first_and_finds_its_row(db: Shared) -> None:
    one, other = db.join(), db.join()
    first = partial(keys.claim, me=one, keys=[key("g1")])
    with standing(db.url, db.pool, lambda s: s.change("it", first)) as begun:
        second = db.pool.submit(db.beside(partial(keys.claim, me=other, keys=[key("g2")])))
        wait_for_lock(db.url)
        assert meaning(db) is None
    assert begun.result(60) == {}
    assert second.result(60) == {"g2": "g1"}


def test_the_second_is_the_first_where_that_one_is_rolled_back(db: Shared) -> None:
    one, other = db.join(), db.join()
    first = partial(keys.claim, me=one, keys=[key("g1")])
    with standing(db.url, db.pool, lambda s: s.change("it", first)) as begun:
        second = db.pool.submit(db.beside(partial(keys.claim, me=other, keys=[key("g2")])))
        wait_for_lock(db.url)
        db.do(
            lambda db: db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE state = 'idle in transaction' AND datname = current_database()"
            )
        )
        assert second.result(60) == {}
    assert begun.result(60) == {"g1": "g2"}  # it was done again, and is the second now


def test_two_batches_in_opposite_orders_do_not_wait_for_each_other(db: Shared) -> None:
    one, other = db.join(), db.join()
    first = partial(keys.claim, me=one, keys=[key("g1", "a"), key("g2", "b")])
    with standing(db.url, db.pool, lambda s: s.change("it", first)):
        batch = [key("g3", "b"), key("g4", "a")]
        second = db.pool.submit(db.beside(partial(keys.claim, me=other, keys=batch)))
        wait_for_lock(db.url)
    assert second.result(60) == {"g3": "g2", "g4": "g1"}


def test_who_is_fenced_gets_no_key(db: Shared) -> None:
    one, other = db.join(), db.join()
    db.fence(other, one)
    assert claim(db, one, key("g1")) is None
    assert meaning(db) is None


def test_a_fence_waits_for_a_claim_that_is_first(db: Shared) -> None:
    one, other = db.join(OVER), db.join()
    first = partial(keys.claim, me=one, keys=[key("g1")])
    with standing(db.url, db.pool, lambda s: s.change("it", first)) as begun:
        fenced = db.pool.submit(db.beside(partial(leases.fence, me=other, other=one)))
        wait_for_lock(db.url)
        assert not fenced.done()
    assert begun.result(60) == {}
    assert fenced.result(60) is True
    assert meaning(db) == "g1"


def test_what_a_dead_server_accepted_keeps_its_key_and_nothing_else_does(db: Shared) -> None:
    one, other = db.join(), db.join()
    assert claim(db, one, key("g1"), key("g2", "never")) == {}
    db.do(lambda db: accept(db, one, "g1"))
    assert claim(db, other, key("g3", "never")) == {"g3": "g2"}  # it may still be accepted
    db.fence(other, one)
    assert claim(db, other, key("g4"), key("g3", "never")) == {"g4": "g1"}
    assert meaning(db, "never") == "g3"
    # The accepted one is adopted, and ends: its key is its own until its result is deleted.
    db.do(lambda db: db.execute("UPDATE generations SET server = %s", (other,)))
    assert claim(db, other, key("g5")) == {"g5": "g1"}
    put(db, "g1", "done")
    db.do(lambda db: db.execute("DELETE FROM generations"))
    assert claim(db, other, key("g5")) == {"g5": "g1"}
    found = db.do(lambda db: keys.find(db, "ann", "k"))
    assert found is not None
    assert (found.over, found.done) == (True, True)


def accept(db: Connection, server: int, generation: str) -> None:
    db.execute(
        "INSERT INTO generations (id, owner, server) VALUES (%s, 'ann', %s)", (generation, server)
    )


def test_what_did_not_come_to_its_end_is_tried_again_by_one(db: Shared) -> None:
    one, other = db.join(), db.join()
    assert claim(db, one, key("g1")) == {}
    put(db, "g1", "failed")
    first = partial(keys.claim, me=other, keys=[key("g2")])
    with standing(db.url, db.pool, lambda s: s.change("it", first)) as begun:
        second = db.pool.submit(db.beside(partial(keys.claim, me=one, keys=[key("g3")])))
        wait_for_lock(db.url)
    assert begun.result(60) == {}
    assert second.result(60) == {"g3": "g2"}


def test_a_server_takes_its_own_key_from_what_it_has_no_longer(db: Shared) -> None:
    one, other = db.join(), db.join()
    assert claim(db, one, key("g1")) == {}
    assert claim(db, other, key("g2"), gone=("g1",)) == {"g2": "g1"}  # it is not the other's
    assert claim(db, one, key("g2"), gone=("g0",)) == {"g2": "g1"}
    assert claim(db, one, key("g2"), gone=("g1",)) == {}
    assert meaning(db) == "g2"
    # But not where another server has it now.
    db.do(lambda db: accept(db, other, "g2"))
    assert claim(db, one, key("g3"), gone=("g2",)) == {"g3": "g2"}


def test_a_key_goes_with_its_result(db: Shared) -> None:
    one = db.join()
    assert claim(db, one, key("g1"), key("g2", "l")) == {}
    put(db, "g1", "done")
    store = PostgresStore(db.url, write=True)
    try:
        assert store.delete("g1", "ann") is not None
    finally:
        store.close()
    assert (meaning(db), meaning(db, "l")) == (None, "g2")


def test_keys_of_what_is_nowhere_are_found_and_freed(db: Shared) -> None:
    one, other = db.join(), db.join()
    wanted = [key(f"g{n}", f"k{n}") for n in range(4)]
    assert claim(db, one, *wanted) == {}
    assert claim(db, other, key("h", "h")) == {}
    db.do(lambda db: accept(db, one, "g1"))
    put(db, "g2", "done", "k2")
    assert sorted(db.do(lambda db: keys.unknown(db, one))) == ["g0", "g3"]
    assert db.do(lambda db: keys.release(db, ["g0", "nothing"])) == 1
    assert db.do(keys.sweep) == 0
    db.fence(other, one)
    assert db.do(keys.sweep) == 1
    found = [meaning(db, name) for name in ("k0", "k1", "k2", "k3", "h")]
    assert found == [None, "g1", "g2", None, "h"]


def test_what_is_accepted_or_stored_keeps_its_key_from_a_late_release(db: Shared) -> None:
    one = db.join()
    assert claim(db, one, key("g1", "k1"), key("g2", "k2")) == {}
    put(db, "g2", "done", "k2")

    def accept_it(db: Connection) -> None:
        assert keys.claim(db, one, [key("g1", "k1")]) == {}
        accept(db, one, "g1")

    with standing(db.url, db.pool, lambda s: s.change("it", accept_it)):
        late = db.pool.submit(db.beside(partial(keys.release, generations=["g1", "g2"])))
        wait_for_lock(db.url)
    assert late.result(60) == 0
    assert [meaning(db, name) for name in ("k1", "k2")] == ["g1", "g2"]


def test_what_is_begun_under_keys_of_one_beginning(db: Shared) -> None:
    one = db.join()
    mine = [key(f"g{n}", f"batch_a:{n}") for n in range(3)]
    others = [key("x", "batch_a"), key("y", "batch_b:1"), key("z", "batch_a:1", owner="bob")]
    assert claim(db, one, *mine, *others) == {}
    put(db, "g1", "done", "batch_a:1")
    assert sorted(db.do(lambda db: keys.begun(db, "ann", "batch_a:"))) == ["g0", "g2"]


def test_the_key_of_a_server_that_joined_while_a_claim_waited_is_its_own(db: Shared) -> None:
    one, other = db.join(), db.join()
    first = partial(keys.claim, me=other, keys=[key("g0", "a")])
    with standing(db.url, db.pool, lambda s: s.change("it", first)):
        wanted = [key("g1", "a"), key("g2", "b")]
        second = db.pool.submit(db.beside(partial(keys.claim, me=one, keys=wanted)))
        wait_for_lock(db.url)
        new = db.join()  # the statement that waits does not see it
        assert claim(db, new, key("g3", "b")) == {}
        db.do(lambda db: accept(db, new, "g3"))
    assert second.result(60) == {"g1": "g0", "g2": "g3"}
    assert meaning(db, "b") == "g3"


def test_the_key_of_a_server_that_joined_while_a_sweep_waited_stays(db: Shared) -> None:
    gone, one = db.join(), db.join()
    assert claim(db, gone, key("g0", "a"), key("g1", "b")) == {}
    db.fence(one, gone)
    first = partial(keys.claim, me=one, keys=[key("g2", "a")])
    with standing(db.url, db.pool, lambda s: s.change("it", first)):
        late = db.pool.submit(db.beside(keys.sweep))
        wait_for_lock(db.url)
        new = db.join()
        assert claim(db, new, key("g3", "b")) == {}
        db.do(lambda db: accept(db, new, "g3"))
    assert late.result(60) == 0
    assert (meaning(db, "a"), meaning(db, "b")) == ("g2", "g3")


def test_what_a_forgotten_server_has_left_goes_with_it(db: Shared) -> None:
    gone, one = db.join(), db.join()
    assert claim(db, gone, key("g1", "a"), key("g2", "b")) == {}
    put(db, "g2", "done", "b")
    db.fence(one, gone)
    long_ago = "UPDATE servers SET adopted = true, ended = now() - interval '31 days'"
    db.do(lambda db: db.execute(f"{long_ago} WHERE number = %s", (gone,)))
    db.join()
    assert (meaning(db, "a"), meaning(db, "b")) == (None, "g2")


class _Entry:
    """As JournalEntry, for the mirror."""

    slot = 1
    accepted_at = 0
    taken: str | None = None


def started(id_: str) -> Contents:
    entry = Started(_Entry(), Accept(id_, "ann", "k", b"hash"))
    return Contents(joined([encode(Forgotten(1))]), [entry], [])


def taken(contents: Contents) -> str | None:
    return contents.started[0].entry.taken


@pytest.fixture
def mirror(db: Shared) -> Iterator[Mirror]:
    out = Mirror(db.url)
    out.claim_keys = keys.claim_accepted
    yield out
    out._session.close()


def test_who_was_refused_by_an_attempt_whose_answer_was_lost_is_not_accepted_by_the_next(
    db: Shared, mirror: Mirror
) -> None:
    one, other = db.join(), db.join()
    assert claim(db, other, key("g9")) == {}
    first, again = started("g1"), started("g1")
    assert mirror._write(one, 1, first)
    assert taken(first) == "g9"
    db.do(lambda db: keys.release(db, ["g9"]))  # nobody ever accepted that one
    assert mirror._write(one, 1, again)
    assert taken(again) is not None
    assert db.do(lambda db: leases.owned(db, one)) == {}
    # And who was accepted is so at each attempt.
    for _ in range(2):
        contents = started("g2")
        assert mirror._write(one, 2, contents)
        assert taken(contents) is None
    assert {*db.do(lambda db: leases.owned(db, one))} == {"g2"}


def test_who_has_a_key_is_not_told_before_the_commit(
    db: Shared, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = db.join(), db.join()
    assert claim(db, other, key("g9")) == {}

    def lost(*_: object) -> bool:
        raise StorageError("the connection is lost", StorageError.BUSY)

    contents = started("g1")
    with monkeypatch.context() as broken:
        broken.setattr(leases, "added", lost)
        with pytest.raises(StorageError):
            mirror._write(one, 1, contents)
    assert taken(contents) is None
