"""Two transactions of PostgreSQL at once: what one of SQLite's has for itself is locked here.

The first one stands before its commit until the second is seen to wait for it, or is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from llcuda_net.cluster import leases
from llcuda_net.errors import InvalidRequest, StorageError
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.files.quota import check_quota
from llcuda_net.storage.objects import batches, conversations, entries, feed, files
from llcuda_net.storage.objects.batches import Batch, Details, Line, Outcome
from llcuda_net.storage.objects.conversations import Conversation
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.postgres import PostgresDatabase
from llcuda_net.storage.postgres.connection import Connection
from tests.support.storage.conversations import item
from tests.support.storage.objects import connected, made
from tests.support.storage.postgres import Postgres

_T = TypeVar("_T")
_U = TypeVar("_U")
PATIENCE = 60.0


class Pair:
    """Two servers, each with a connection.

    Attributes:
        one, two: their databases, where each statement is a transaction.
    """

    def __init__(self, url: str) -> None:
        self._connections = [connected(url) for _ in range(3)]
        lives = [leases.join(self._connections[0], name, "") for name in "ab"]
        self.one, self.two = map(PostgresDatabase, self._connections, lives)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def at_once(
        self, first: Callable[[Database], _T], second: Callable[[Database], _U]
    ) -> tuple[_T, _U]:
        """What both return; the first is not committed before the second waits, or is over."""

        def run() -> _U:
            with self._connections[1].transaction():
                return second(self.two)

        with ThreadPoolExecutor(1) as pool:
            with self._connections[0].transaction():
                found = first(self.one)
                later = pool.submit(run)
                end = time.monotonic() + PATIENCE
                while not (later.done() or self._waits()):
                    assert time.monotonic() < end
                    time.sleep(0.002)
            return found, later.result(PATIENCE)

    def _waits(self) -> bool:
        row = (
            self._connections[2]
            .execute(
                "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
                (self._connections[1].info.backend_pid,),
            )
            .fetchone()
        )
        return row == (True,)

    def fence(self) -> None:
        """The first is gone."""
        self._connections[2].execute(
            "UPDATE servers SET fenced = true WHERE number = %s", (self.one.life,)
        )


@pytest.fixture
def pair(postgres: Postgres) -> Iterator[Pair]:
    url = postgres.new_database()
    made(url)
    found = Pair(url)
    yield found
    found.close()


def ids(db: Database, conversation: Conversation) -> list[str]:
    return [one.id for one in entries.path(db, conversation)]


def orphans(db: Database) -> int:
    sql = "SELECT count(*) FROM entries WHERE conversation NOT IN (SELECT seq FROM conversations)"
    return int(db.value(sql))


# -- conversations --------------------------------------------------------------------------------


def test_what_two_add_at_the_end_is_one_path(pair: Pair) -> None:
    one = conversations.create(pair.one, "ann")
    pair.at_once(
        lambda db: entries.add_items(db, one, [item("a"), item("b")]),
        lambda db: entries.add_items(db, one, [item("c"), item("a")]),
    )
    assert ids(pair.one, one) == ["a", "b", "c"]
    now = conversations.get(pair.one, one.id, "ann")
    assert now is not None
    assert now.size == 3


def test_what_two_add_behind_one_entry_are_versions(pair: Pair) -> None:
    one = conversations.create(pair.one, "ann")
    entries.add_items(pair.one, one, [item("a")])
    (first,) = entries.links(pair.one, one)
    pair.at_once(
        lambda db: entries.add_generation(db, one, "g", parent=first.seq),
        lambda db: entries.add_generation(db, one, "h", parent=first.seq),
    )
    assert [link.parent for link in entries.links(pair.two, one)] == [0, first.seq, first.seq]
    assert ids(pair.two, one) == ["a", "h"]


def test_one_that_is_deleted_takes_what_is_added_with_it(pair: Pair) -> None:
    one = conversations.create(pair.one, "ann")
    pair.at_once(
        lambda db: entries.add_items(db, one, [item("a")]),
        lambda db: conversations.delete(db, one),
    )
    assert orphans(pair.one) == 0
    assert conversations.get(pair.one, one.id, None) is None


def test_nothing_is_added_to_one_that_is_being_deleted(pair: Pair) -> None:
    def nothing(change: Callable[[Database], Any]) -> Callable[[Database], None]:
        def work(db: Database) -> None:
            with pytest.raises(InvalidRequest, match="deleted meanwhile"):
                change(db)

        return work

    for change in (
        lambda db, one: entries.add_items(db, one, [item("a")]),
        lambda db, one: entries.add_generation(db, one, "g", parent=0),
    ):
        one = conversations.create(pair.one, "ann")
        pair.at_once(
            lambda db: conversations.delete(db, one),  # noqa: B023
            nothing(lambda db: change(db, one)),  # noqa: B023
        )
    one = conversations.create(pair.one, "ann")
    pair.at_once(
        lambda db: conversations.delete(db, one), lambda db: entries.delete_item(db, one, "x")
    )
    assert orphans(pair.one) == 0
    assert pair.one.value("SELECT count(*) FROM hidden") == 0


@pytest.mark.parametrize("first", ["delete", "add"])
def test_an_item_is_deleted_while_something_goes_on_from_it(pair: Pair, first: str) -> None:
    one = conversations.create(pair.one, "ann")
    entries.add_items(pair.one, one, [item("a"), item("b")])
    end = entries.links(pair.one, one)[-1]

    def delete(db: Database) -> None:
        entries.delete_item(db, one, "b")

    def add(db: Database) -> str:
        try:
            entries.add_generation(db, one, "g", parent=end.seq)
        except InvalidRequest as error:
            return str(error)
        return ""

    if first == "delete":
        _, why = pair.at_once(delete, add)
        assert "goes on from was deleted" in why
        assert ids(pair.one, one) == ["a"]
    else:
        assert pair.at_once(add, delete)[0] == ""
        assert ids(pair.one, one) == ["a", "g"]
    now = conversations.get(pair.one, one.id, None)
    assert now is not None
    assert now.size == len(entries.links(pair.one, one)) == len(ids(pair.one, one))


def test_two_changes_of_members_lose_none(pair: Pair) -> None:
    one = conversations.create(pair.one, "ann")

    def change(db: Database, **members: Any) -> None:
        known = conversations.get(db, one.id, "ann", to_change=True)
        assert known is not None
        now = {"title": known.title, "pinned": known.pinned, "metadata": known.metadata}
        conversations.update(db, known, **{**now, **members})

    pair.at_once(lambda db: change(db, title="t"), lambda db: change(db, pinned=True))
    now = conversations.get(pair.one, one.id, "ann")
    assert now is not None
    assert (now.title, now.pinned) == ("t", True)


def test_words_that_are_forgotten_and_those_that_come_then(pair: Pair) -> None:
    one = conversations.create(pair.one, "ann")
    entries.add_generation(pair.one, one, "g", question="Old?")
    pair.at_once(
        lambda db: entries.delete_item(db, one, "msg_g_i0"),
        lambda db: entries.add_generation(db, one, "h", question="New?"),
    )
    now = conversations.get(pair.one, one.id, "ann")
    assert now is not None
    assert now.preview == "New?"


# -- batches --------------------------------------------------------------------------------------


def kept(db: Database, id_: str = "file-1") -> files.File:
    seq = files.begin(db, id_, "ann", 1)
    files.append(db, seq, 0, [b"x" * 10_000])
    return files.finish(db, seq, purpose="batch", name="n", expires=None)


def batch_of(db: Database, id_: str = "batch_1", key: str | None = None) -> Batch:
    batch = batches.create(
        db,
        id_,
        kept(db, f"file-of-{id_}"),
        owner="ann",
        endpoint="/v1/x",
        details=Details("24h"),
        created=1,
        expires=2,
        key=key,
    )
    batches.add_lines(db, batch.seq, [Line(n, n, 1, str(n)) for n in range(3)])
    batches.begin(db, batch.seq, 3, 1)
    return batch


def test_a_line_has_one_outcome_whoever_notes_it(pair: Pair) -> None:
    batch = batch_of(pair.one)
    pair.at_once(
        lambda db: batches.record(db, batch.seq, [Outcome(0, False, b"1\n", 1, 1)]),
        lambda db: batches.record(
            db, batch.seq, [Outcome(0, True, b"2\n", 1, 1), Outcome(1, True, b"3\n", 1, 1)]
        ),
    )
    now = batches.get(pair.one, batch.seq)
    assert (now.completed, now.failed, now.input_tokens) == (1, 1, 2)
    assert [one.data for one in batches.outcomes(pair.one, batch.seq, 0, 99)] == [b"1\n", b"3\n"]


def test_a_batch_is_claimed_by_one_and_by_none_while_its_server_lives(pair: Pair) -> None:
    batch = batch_of(pair.one)
    assert batch.server == pair.one.life
    assert not batches.claim(pair.two, batch.seq)
    assert batches.to_run(pair.two) == []
    pair.fence()
    assert [one.seq for one in batches.to_run(pair.two)] == [batch.seq]
    third = PostgresDatabase(pair.one._connection, leases.join(pair.one._connection, "c", ""))
    claimed = pair.at_once(
        lambda _: batches.claim(third, batch.seq), lambda db: batches.claim(db, batch.seq)
    )
    assert claimed == (True, False)


def test_what_a_run_has_written_is_seen_by_who_takes_over(pair: Pair) -> None:
    batch = batch_of(pair.one)
    assert pair.one.life is not None
    life = pair.one.life
    pair.fence()

    def write(db: Database) -> bool:
        ours = batches.is_of(db, batch.seq, life)
        if ours:
            batches.record(db, batch.seq, [Outcome(0, False, b"1\n")])
        return ours

    def take(db: Database) -> list[int]:
        assert batches.claim(db, batch.seq)
        return [one.number for one in batches.missing(db, batch.seq, 0, 9)]

    assert pair.at_once(write, take) == (True, [1, 2])
    assert not write(pair.one)


def test_nothing_is_written_by_a_run_that_another_has_taken_over(pair: Pair) -> None:
    batch = batch_of(pair.two)
    assert pair.two.life is not None
    life = pair.two.life
    pair.two.run("UPDATE servers SET fenced = true WHERE number = ?", (life,))
    claimed, ours = pair.at_once(
        lambda db: batches.claim(db, batch.seq), lambda db: batches.is_of(db, batch.seq, life)
    )
    assert (claimed, ours) == (True, False)


def test_a_batch_that_is_cancelled_while_it_begins(pair: Pair) -> None:
    batch = batch_of(pair.one)
    pair.at_once(
        lambda db: batches.cancel(db, batch.seq, 5),
        lambda db: batches.finalize(db, batch.seq, "completed", 6),
    )
    now = batches.get(pair.one, batch.seq)
    assert (now.state, now.ends) == ("cancelling", "cancelled")


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["use", "delete"])
def test_a_file_that_is_deleted_while_a_batch_of_it_is_made(pair: Pair, first: str) -> None:
    file = kept(pair.one)

    def use(db: Database) -> bool:
        found = files.find(db, file.id, "ann", 1, to_use=True)
        if found is None:
            return False
        batches.create(
            db,
            "batch_1",
            found,
            owner="ann",
            endpoint="/v1/x",
            details=Details("24h"),
            created=1,
            expires=2,
        )
        return True

    def delete(db: Database) -> None:
        files.discard(db, file.seq)

    if first == "use":
        assert pair.at_once(use, delete)[0]
        assert not files.sweep(pair.one, 1)
        assert files.part(pair.one, file.seq, 0, 5) == b"xxxxx"
    else:
        assert not pair.at_once(delete, use)[1]
        assert files.sweep(pair.one, 1)


def test_two_sweeps_at_once(pair: Pair) -> None:
    for name in ("file-1", "file-2"):
        files.discard(pair.one, kept(pair.one, name).seq)
    swept = pair.at_once(lambda db: files.sweep(db, 1), lambda db: files.sweep(db, 1))
    assert swept == (True, True)
    assert pair.one.value("SELECT count(*) FROM files") == 0
    assert pair.one.value("SELECT count(*) FROM chunks") == 0


def test_what_a_server_uploads_that_is_gone_is_given_up(pair: Pair) -> None:
    seq = files.begin(pair.one, "file-1", "ann", 1)
    mine = files.begin(pair.two, "file-2", "ann", 1)
    files.abandon(pair.two)
    files.append(pair.one, seq, 0, [b"a"])
    pair.fence()
    files.abandon(pair.two)
    files.append(pair.two, mine, 0, [b"a"])
    for late in (
        lambda: files.append(pair.one, seq, 1, [b"b"]),
        lambda: files.finish(pair.one, seq, purpose="batch", name="n", expires=None),
    ):
        with pytest.raises(StorageError, match="given up") as caught:
            late()
        assert caught.value.retry


def test_who_is_no_member_uploads_nothing(pair: Pair) -> None:
    pair.one.life = None
    with pytest.raises(StorageError, match="cut off") as caught:
        files.begin(pair.one, "file-1", "ann", 1)
    assert caught.value.retry
    assert not batches.claim(pair.one, batch_of(pair.two).seq)


def test_two_uploads_do_not_share_the_last_bytes_of_a_quota(pair: Pair) -> None:
    def begin(db: Database) -> bool:
        try:
            check_quota(db, "ann", 4096)
        except HttpError:
            return False
        files.begin(db, f"file-{db.life}", "ann", 1)
        return True

    assert pair.at_once(begin, begin) == (True, False)


# -- changes --------------------------------------------------------------------------------------


def told(db: Database, last: feed.Position, life: int | None) -> tuple[list[str], feed.Position]:
    found, position = feed.since(db, last, life)
    assert found is not None
    return [one.kind for one in found], position


def test_a_change_that_is_committed_late_is_told_late_and_once(pair: Pair) -> None:
    last = feed.position(pair.two)
    others = pair.two.life
    connection: Connection = pair.one._connection
    with connection.transaction():
        pair.one.changed("ann", "c1", "late")
        pair.two.changed("ann", "c2", "own")
        third = PostgresDatabase(pair.two._connection, None)
        third.changed("ann", "c3", "early")
        found, last = told(pair.two, last, others)
        assert found == ["early"]
        assert told(pair.two, last, others)[0] == []
    found, last = told(pair.two, last, others)
    assert found == ["late"]
    found, last = told(pair.two, last, others)
    assert (found, last.seen) == ([], frozenset())


def test_a_database_that_was_set_back_is_noticed(pair: Pair) -> None:
    oldest, seen = feed.position(pair.one)
    assert feed.since(pair.one, feed.Position(oldest + 1000, seen), None)[0] is None


def test_old_changes_are_forgotten(pair: Pair) -> None:
    last = feed.position(pair.one)
    for kind in ("old", "new"):
        pair.one.changed("ann", "c", kind)
    pair.one.run("UPDATE changes SET made = made - interval '11 minutes' WHERE kind = 'old'")
    feed.sweep(pair.one)
    assert told(pair.one, last, None)[0] == ["new"]
