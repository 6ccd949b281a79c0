"""The mirror on a real PostgreSQL: what is told, and what the database has then."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

import psycopg
import pytest
import trio
import trio.testing

from llcuda_net.cluster import committer, keys, leases, portions, recovery
from llcuda_net.cluster.mirror import Mirror
from llcuda_net.cluster.portions import Life
from llcuda_net.cluster.trimming import Trimming
from llcuda_net.config.settings import Settings
from llcuda_net.config.users import User
from llcuda_net.errors import RequestError, StorageError
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.publisher import Publisher
from llcuda_net.generation.request import from_journal
from llcuda_net.generation.state import State
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.packed_log import PackedLog
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.migrations import migrate
from llcuda_net.storage.postgres.opening import open_postgres
from llcuda_net.storage.records import Ended, Level, Result, TokenLog
from llcuda_net.storage.replica.interface import Accept, Adopted
from llcuda_net.storage.starting import Recovered
from llcuda_net.storage.storage import Storage
from llcuda_net.upstream.interface import CompletionEvent
from tests.support.storage.interleaving import standing, wait_for_lock
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import MODEL, opened

_T = TypeVar("_T")
LONG = 3600.0
END: dict[str, Any] = {"state": "done", "reason": "stop", "model": MODEL, "finished": 5}


class Database:
    """A database of servers, and what a test asks it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = Session(url, write=True)
        migrate(self.session)

    def do(self, work: Callable[[Connection], _T]) -> _T:
        return self.session.change("it", work)

    def join(self) -> int:
        return self.do(lambda db: leases.join(db, "name", "127.0.0.1:1", LONG))

    def fence(self, me: int, other: int) -> None:
        """Have a server fenced whatever its lease says."""
        self.do(lambda db: leases.renew(db, other, -1.0))
        assert self.do(lambda db: leases.fence(db, me, other))

    def logs(self, server: int) -> dict[str, list[str]]:
        """What another server would find of a server's generations."""
        found = self.do(lambda db: recovery.read(db, server)).generations
        return {one.id: one.log.pieces for one in found}

    def owned(self, server: int) -> set[str]:
        return {*self.do(lambda db: leases.owned(db, server))}

    @asynccontextmanager
    async def serving(
        self, directory: Path, number: int, former: tuple[int, ...] = ()
    ) -> AsyncIterator[Storage]:
        mirror = Mirror(self.url)
        mirror.claim_keys = keys.claim_accepted
        mirror.begin(number, former)
        storage = Storage(
            directory,
            interval=0,
            open_store=lambda write: open_postgres(self.url, write),
            replica=mirror,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(storage.run)
            yield storage
            nursery.cancel_scope.cancel()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    out = Database(postgres.new_database())
    yield out
    out.session.close()


def grown(kept: JournalEntry, count: int) -> None:
    first = kept.count
    kept.append([f"t{i}" for i in range(first, first + count)], [*range(first, first + count)])


def pieces(count: int) -> list[str]:
    return [f"t{i}" for i in range(count)]


async def committed(storage: Storage) -> None:
    assert storage.replica is not None
    storage.journal.write()
    await storage.replica.until(storage.replica.position)


async def test_a_generation_from_beginning_to_end(database: Database, tmp_path: Path) -> None:
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, level=Level.CLUSTER, owner="ann"))
        await storage.accepted(kept)
        assert database.logs(one) == {"generation-1": []}
        grown(kept, 5)
        await committed(storage)
        assert database.logs(one) == {"generation-1": pieces(5)}
        log = TokenLog(pieces(5), [*range(5)])
        result = await storage.finish(kept, Ended(**END), log)
        assert database.owned(one) == set()
        assert await storage.read(lambda store: store.get("generation-1")) == result


async def test_nothing_is_told_before_its_commit(database: Database, tmp_path: Path) -> None:
    one = database.join()
    async with database.serving(tmp_path, one) as storage, trio.open_nursery() as nursery:
        told: list[str] = []

        async def accept() -> None:
            await storage.accepted(kept)
            told.append("accepted")

        with ThreadPoolExecutor(1) as pool:
            keep = partial(_lock_server, server=one)
            with standing(database.url, pool, lambda s: s.change("it", keep)):
                kept = storage.start(opened(1, level=Level.CLUSTER))
                nursery.start_soon(accept)
                await trio.to_thread.run_sync(wait_for_lock, database.url)
                await storage.written()  # the local journal has it
                grown(kept, 3)
                storage.journal.write()
                replica = storage.replica
                assert replica is not None
                assert not replica.when(replica.position, lambda _: told.append("tokens"))
                await trio.testing.wait_all_tasks_blocked()
                assert told == []
        await committed(storage)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(told) == ["accepted", "tokens"]
        assert database.logs(one) == {"generation-1": pieces(3)}


def test_batches_have_a_rate_in_the_long_run_and_none_after_a_silence() -> None:
    rate, now, begun = committer.Rate(), 1000.0, []
    for _ in range(100):  # as fast as it may be
        now += rate.wait(now)
        rate.count(now)
        begun.append(now)
    assert begun[: committer.BURST] == pytest.approx([1000.0] * committer.BURST)
    pauses = [after - before for before, after in pairwise(begun[committer.BURST - 1 :])]
    assert pauses == pytest.approx([committer.EVERY] * len(pauses))
    step = committer.BURST * committer.EVERY
    for _ in range(100):  # no more than that in a burst: each goes at once
        now += step
        for _ in range(committer.BURST):
            assert rate.wait(now) < 1e-9
            rate.count(now)


async def test_records_beyond_the_rate_wait_and_are_woken_by_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "EVERY", LONG)
    looks, order = count(), Mirror._order

    def looking(self: Mirror, life: Life) -> Callable[[], object] | None:
        next(looks)
        return order(self, life)

    monkeypatch.setattr(Mirror, "_order", looking)
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, level=Level.CLUSTER))
        await storage.accepted(kept)
        for _ in range(committer.BURST - 1):
            grown(kept, 1)
            await committed(storage)
        replica = storage.replica
        told: list[StorageError | None] = []
        assert replica is not None
        looked = next(looks)
        for _ in range(20):
            await trio.sleep(0.002)  # time for the thread to do what it must not
            grown(kept, 1)
            storage.journal.write()
            replica.when(replica.position, told.append)
        assert next(looks) < looked + 5
    assert told == [None] * 20  # the end does not wait
    numbers = [number for number, _ in database.do(lambda db: leases.journal(db, one))]
    assert numbers == [*range(1, committer.BURST + 2)]
    assert database.logs(one) == {"generation-1": pieces(committer.BURST + 19)}


async def test_what_another_server_has_is_forgotten_without_a_word(
    database: Database, tmp_path: Path
) -> None:
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept, other = (storage.start(opened(n, level=Level.CLUSTER)) for n in (1, 2))
        await storage.accepted(kept)
        await storage.accepted(other)
        storage.forget(kept)  # it may be adopted here again, before the next batch
        grown(other, 1)
        await committed(storage)
        assert database.owned(one) == {"generation-1", "generation-2"}


def _lock_server(db: Connection, server: int) -> None:
    db.execute("SELECT 1 FROM servers WHERE number = %s FOR UPDATE", (server,))


async def test_a_batch_whose_answer_was_lost_is_there_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = database.join()
    append, lost = leases.append, count()

    def losing(*args: Any, **more: Any) -> bool:
        there = append(*args, **more)
        if next(lost) % 3 < 2:  # of three answers two are lost, one of them twice in a row
            raise psycopg.OperationalError("the answer was lost")
        return there

    monkeypatch.setattr(leases, "append", losing)
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, level=Level.CLUSTER))
        await storage.accepted(kept)
        for _ in range(4):
            grown(kept, 2)
            await committed(storage)
        numbers = [number for number, _ in database.do(lambda db: leases.journal(db, one))]
        assert numbers == [1, 2, 3, 4, 5]
        assert database.logs(one) == {"generation-1": pieces(8)}


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_told_is_in_the_database_whatever_is_lost(
    seed: int, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, rng = database.join(), random.Random(seed)
    append = leases.append

    def losing(*args: Any, **more: Any) -> bool:
        if rng.random() < 0.3:
            raise psycopg.OperationalError("the request was lost")
        there = append(*args, **more)
        if rng.random() < 0.3:
            raise psycopg.OperationalError("the answer was lost")
        return there

    monkeypatch.setattr(leases, "append", losing)
    monkeypatch.setattr(portions, "_LONGEST", 0.01)
    async with database.serving(tmp_path, one) as storage:
        replica = storage.replica
        assert replica is not None
        kept = storage.start(opened(1, level=Level.CLUSTER))
        told: list[int] = []

        def tell(length: int, error: StorageError | None) -> None:
            assert error is None
            assert len(database.logs(one)["generation-1"]) >= length
            told.append(length)

        for length in range(1, 21):
            grown(kept, 1)
            storage.journal.write()
            if replica.when(replica.position, partial(tell, length)):
                tell(length, None)
            await trio.sleep(rng.random() * 0.01)
        await replica.until(replica.position)
        assert told == [*range(1, 21)]
        numbers = [number for number, _ in database.do(lambda db: leases.journal(db, one))]
        assert numbers == [*range(1, len(numbers) + 1)]


async def test_who_is_fenced_is_told_nothing_and_ends_nothing(
    database: Database, tmp_path: Path
) -> None:
    one, other = database.join(), database.join()
    async with database.serving(tmp_path / "one", one) as storage:
        fenced: list[int] = []
        mirror = storage.replica
        assert isinstance(mirror, Mirror)
        mirror.on_fenced = fenced.append
        kept, ended = (storage.start(opened(n, level=Level.CLUSTER)) for n in (1, 2))
        await storage.accepted(ended)
        grown(kept, 3)
        await committed(storage)
        database.fence(other, one)
        grown(kept, 1)
        with pytest.raises(StorageError) as caught:
            await committed(storage)
        assert caught.value.code == StorageError.FENCED
        assert fenced == [one]
        with pytest.raises(StorageError) as caught:
            await storage.finish(ended, Ended(**END), TokenLog())
        assert caught.value.code == StorageError.FENCED
        with pytest.raises(StorageError) as caught:
            storage.start(opened(3))
        assert caught.value.code == StorageError.FENCED
        async with database.serving(tmp_path / "other", other) as heir:
            former = database.do(lambda db: recovery.read(db, one))
            found = await heir.adopt(one, former.generations)
            assert [(r.entry.opened.generation, r.log.pieces) for r in found] == [
                ("generation-1", pieces(3)),
                ("generation-2", []),
            ]
            assert database.logs(other) == {"generation-1": pieces(3), "generation-2": []}
            await heir.finish(found[1].entry, Ended(**END), TokenLog())
            assert database.owned(other) == {"generation-1"}
            # The fenced one wakes up, and has no say in what is over, or another's.
            lost = mirror.position
            mirror.begin(database.join())
            late, again = (Result.of(e.opened, TokenLog(), Ended(**END), []) for e in (kept, ended))
            with pytest.raises(StorageError) as caught:
                await storage._outcomes.commit(late)
            assert caught.value.code == StorageError.FENCED
            await storage._outcomes.commit(again)  # it is stored, as after an answer that was lost
            other_end = Result.of(ended.opened, TokenLog(), Ended(**{**END, "finished": 6}), [])
            with pytest.raises(StorageError) as caught:
                await storage._outcomes.commit(other_end)
            assert caught.value.code == StorageError.FENCED
            assert await heir.read(lambda store: store.states(["generation-1"])) == {}
            mine = storage.start(opened(4, level=Level.CLUSTER))
            with pytest.raises(StorageError) as caught:
                await mirror.until(lost)  # of the life before: never committed
            assert caught.value.code == StorageError.FENCED
            await storage.accepted(mine)


async def test_of_a_batch_of_results_those_that_are_ones_own_are_stored(
    database: Database, tmp_path: Path
) -> None:
    one, other = database.join(), database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = [storage.start(opened(n, level=Level.CLUSTER)) for n in range(4)]
        await storage.accepted(kept[-1])
        sql = "UPDATE generations SET server = %s WHERE id = 'generation-2'"
        database.do(lambda db: db.execute(sql, (other,)))
        refused: list[str] = []

        async def finish(entry: JournalEntry) -> None:
            try:
                await storage.finish(entry, Ended(**END), TokenLog())
            except StorageError as error:
                refused.append(f"{entry.opened.generation} {error.code}")

        async with trio.open_nursery() as nursery:
            for entry in kept:
                nursery.start_soon(finish, entry)
        assert refused == [f"generation-2 {StorageError.FENCED}"]
        ids = [f"generation-{n}" for n in range(4)]
        found = await storage.read(lambda store: store.states(ids))
        assert found == dict.fromkeys(["generation-0", "generation-1", "generation-3"], "done")
        assert database.owned(one) == set()


async def test_a_restart_takes_the_longer_log_of_both(database: Database, tmp_path: Path) -> None:
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = [storage.start(opened(n)) for n in range(3)]
        for entry in kept:
            grown(entry, 2)
        await committed(storage)
        kept[0].mirrored = False  # the database does not get the rest
        grown(kept[0], 3)
        local = storage.journal
        kept[1]._journal = DeafJournal(local)  # type: ignore[assignment]  # the disk does not get the rest
        grown(kept[1], 4)
        late = storage.start(opened(3))
        late.mirrored = False
        await storage.written()
        await committed(storage)
        database.do(lambda db: db.execute("DELETE FROM generations WHERE id = 'generation-3'"))
    two = database.join()
    database.do(lambda db: leases.fence_former(db, two, one))
    async with database.serving(tmp_path, two, (one,)) as storage:
        found = {one.entry.opened.generation: one.log.pieces for one in storage.recovered}
        assert found == {
            "generation-0": pieces(5),
            "generation-1": pieces(6),
            "generation-2": pieces(2),
            "generation-3": [],
        }
        assert database.logs(two) == found
        assert database.owned(one) == set()
        assert database.do(lambda db: leases.journal(db, one)) == []
        for one_ in storage.recovered:
            grown(one_.entry, 1)
        await committed(storage)
    three = database.join()
    database.do(lambda db: leases.fence_former(db, three, two))
    rmtree(tmp_path)  # the disk is lost
    async with database.serving(tmp_path, three, (two,)) as storage:
        lengths = {one.entry.opened.generation: one.packed.count for one in storage.recovered}
        assert lengths == {
            "generation-0": 6,
            "generation-1": 7,
            "generation-2": 3,
            "generation-3": 1,
        }


class DeafJournal:
    """A journal whose files get nothing of what is appended, and whose replica does."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.refusal = None

    def add(self, entry: JournalEntry, body: bytes) -> None:
        assert self._journal.replica is not None
        self._journal.replica.add(entry.slot, body, hurry=False)

    @property
    def appended(self) -> dict[Any, int]:
        return self._journal.appended


async def test_a_restart_forgets_what_others_have_or_had(
    database: Database, tmp_path: Path
) -> None:
    one, other = database.join(), database.join()
    async with database.serving(tmp_path / "one", one) as storage:
        for number in (1, 2, 3):
            kept = storage.start(opened(number, level=Level.CLUSTER))
            grown(kept, 2)
        await committed(storage)
    database.fence(other, one)
    async with database.serving(tmp_path / "other", other) as heir:
        former = database.do(lambda db: recovery.read(db, one))
        found = await heir.adopt(one, former.generations[:2])
        await heir.finish(found[0].entry, Ended(**END), found[0].log)
        assert await heir.delete("generation-1", None) is not None
        # The second one runs there; the third one nobody has taken yet.
        two = database.join()
        async with database.serving(tmp_path / "one", two) as storage:
            assert storage.recovered == []
        three = database.join()
        async with database.serving(tmp_path / "one", three) as storage:
            assert storage.recovered == []


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_restart_forgets_what_lost_its_key_before_it_was_in_the_database(
    database: Database, tmp_path: Path, is_over: bool
) -> None:
    one, other = database.join(), database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, key="k"))
        grown(kept, 2)
        if is_over:
            kept.end(Ended(**END))
        await storage.written()
        await committed(storage)
        database.do(lambda db: db.execute("DELETE FROM generations"))
        database.do(lambda db: db.execute("DELETE FROM keys"))
    key = keys.Key("", "k", "another", b"")
    database.do(lambda db: keys.claim(db, other, [key]))  # it is sent again, and runs there
    two = database.join()
    database.do(lambda db: leases.fence_former(db, two, one))
    async with database.serving(tmp_path, two, (one,)) as storage:
        assert storage.recovered == []
        assert await storage.read(lambda store: store.states(["generation-1"])) == {}


async def test_batches_that_nobody_needs_are_deleted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "_TRIM", 0.0)
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        mirror = storage.replica
        assert isinstance(mirror, Mirror)
        mirror._life.trimming = Trimming(keep=2000, copy=500)
        old = storage.start(opened(0, level=Level.CLUSTER))
        grown(old, 3)
        await committed(storage)
        for number in range(1, 60):
            kept = storage.start(opened(number, level=Level.CLUSTER))
            grown(kept, 20)
            await storage.accepted(kept)
            await storage.finish(kept, Ended(**END), TokenLog(pieces(20), [*range(20)]))
        grown(old, 2)
        await committed(storage)

        def batches() -> list[tuple[int, bytes]]:
            return database.do(lambda db: leases.journal(db, one, limit=1000))

        life = mirror._life
        with trio.fail_after(60):
            while life.pending or life.trimming.due:  # noqa: ASYNC110
                await trio.sleep(0.01)
        left = batches()
        assert len(left) <= 60
        assert database.logs(one) == {"generation-0": pieces(5)}
        # One that was long under way comes after all: it is not wanted any more.
        first = left[0][0] - 1
        again = partial(leases.append, me=one, number=first, data=b"x", accepts=[Accept("z", "")])
        assert not database.do(again)
        assert database.owned(one) == {"generation-0"}
        assert batches() == left


async def test_a_database_that_was_killed_goes_on(own_postgres: Postgres, tmp_path: Path) -> None:
    database = Database(own_postgres.new_database())
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, level=Level.CLUSTER))
        await storage.accepted(kept)
        await trio.to_thread.run_sync(own_postgres.kill)
        told: list[StorageError | None] = []
        grown(kept, 5)
        storage.journal.write()
        replica = storage.replica
        assert replica is not None
        assert not replica.when(replica.position, told.append)
        await trio.sleep(0.2)
        assert told == []
        await trio.to_thread.run_sync(own_postgres.start)
        await replica.until(replica.position)
        assert told == [None]
        assert database.logs(one) == {"generation-1": pieces(5)}
    database.session.close()


async def test_a_server_ends_although_the_database_does_not_answer(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    database = Database(own_postgres.new_database())
    one = database.join()
    other = database.join()
    database.fence(one, other)
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, level=Level.CLUSTER))
        await storage.accepted(kept)
        await trio.to_thread.run_sync(own_postgres.kill)
        late = storage.start(opened(2))
        errors: list[str] = []

        async def expect(work: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(StorageError) as caught:
                await work()
            errors.append(caught.value.code)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for entry in (kept, late):
                    end = partial(storage.finish, entry, Ended(**END), TokenLog())
                    nursery.start_soon(expect, end)
                nursery.start_soon(
                    expect, partial(storage.adopt, other, [OpenGeneration(opened(3))])
                )
                await trio.sleep(0.1)
                assert errors == []
                storage.close_soon()
        assert sorted(errors) == [
            StorageError.BUSY,
            StorageError.FENCED,
            StorageError.FENCED,
        ]
    # A restart, or another server, ends them.
    own_postgres.start()
    two = database.join()
    database.do(lambda db: leases.fence_former(db, two, one))
    async with database.serving(tmp_path, two, (one,)) as storage:
        assert storage.recovered == []
        ids = ["generation-1", "generation-2"]
        assert await storage.read(lambda store: store.states(ids)) == dict.fromkeys(ids, "done")
    database.session.close()


async def test_without_its_database_a_generation_goes_on(
    database: Database, tmp_path: Path
) -> None:
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, level=Level.CLUSTER))
        grown(kept, 3)
        await committed(storage)
    alone = Storage(tmp_path, interval=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(alone.run)
        (found,) = alone.recovered
        assert found.log.pieces == pieces(3)
        generation = from_journal(found, Settings(), User("ann"))
        persistence = Persistence(alone, Level.DISK)
        persistence.resume(generation, found.entry)
        publisher = Publisher(persistence)
        nursery.start_soon(publisher.run)
        publisher.extend(generation, [CompletionEvent("t3", [3])])
        publisher.publish()
        with trio.fail_after(60):
            while generation.visible < 4:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_one_whose_key_is_anothers_is_forgotten_also_when_its_end_came_first(
    database: Database, tmp_path: Path
) -> None:
    one, other = database.join(), database.join()
    first = partial(keys.claim, me=other, keys=[keys.Key("ann", "k", "g9", b"")])
    ends: list[RequestError | None] = []
    async with database.serving(tmp_path, one) as storage, trio.open_nursery() as nursery:
        persistence = Persistence(storage, Level.CLUSTER)
        with (
            ThreadPoolExecutor(1) as pool,
            standing(database.url, pool, lambda session: session.change("it", first)),
        ):
            entry = storage.start(opened(1, level=Level.CLUSTER, owner="ann", key="k"))
            found = Recovered(entry, PackedLog([]), gap=False)
            generation = from_journal(found, Settings(), User("ann"))
            persistence.resume(generation, entry)

            async def end() -> None:
                ends.append(await persistence.finish(generation, State.CANCELLED, None))

            nursery.start_soon(end)
            await trio.to_thread.run_sync(wait_for_lock, database.url)
            assert ends == []
        with trio.fail_after(60):
            while not ends:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert (ends, generation.entry, persistence.left()) == ([None], None, [])
    assert database.owned(one) == set()
    alone = Storage(tmp_path, interval=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(alone.run)
        assert alone.recovered == []
        nursery.cancel_scope.cancel()


async def test_a_database_that_was_set_back_gets_what_runs_again(
    database: Database, tmp_path: Path
) -> None:
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = [storage.start(opened(n, level=Level.CLUSTER)) for n in range(3)]
        for entry in kept:
            grown(entry, 4)
        await committed(storage)
        await storage.finish(kept[0], Ended(**END), TokenLog(pieces(4), [*range(4)]))
        before = database.do(lambda db: leases.last(db, one))
        grown(kept[1], 2)
        await committed(storage)

        def set_back(db: Connection) -> None:
            db.execute("DELETE FROM journal WHERE server = %s AND number >= %s", (one, before))
            db.execute("DELETE FROM generations")
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        database.do(set_back)
        grown(kept[2], 1)
        await committed(storage)
        with trio.fail_after(60):
            while database.owned(one) != {"generation-1", "generation-2"}:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert database.logs(one) == {"generation-1": pieces(6), "generation-2": pieces(5)}
        assert database.do(lambda db: leases.last(db, one)) > before


async def test_a_life_that_is_taken_over_from_was_not_set_back(
    database: Database, tmp_path: Path
) -> None:
    one, other = database.join(), database.join()
    async with database.serving(tmp_path, one) as storage:
        entry = storage.start(opened(1, level=Level.CLUSTER))
        grown(entry, 4)
        await committed(storage)
        told: list[bool] = []
        assert storage.replica is not None
        storage.replica.on_set_back = lambda: told.append(True)
        database.fence(other, one)
        found = database.do(lambda db: recovery.read(db, one)).generations
        adopted = [Adopted(found[0].id, [*restated(found[0], 1)], 1)]
        assert database.do(lambda db: leases.adopt(db, other, one, 1, adopted))
        assert database.do(lambda db: leases.adopted(db, other, one))
        database.do(
            lambda db: db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        grown(entry, 1)
        with pytest.raises(StorageError):
            await committed(storage)
        assert told == []
