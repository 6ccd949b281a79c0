"""The parts of the simulated cluster: time, network, disk, and what its readers find wrong."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Level
from tools.simulated_cluster.clock.scheduler import Machine, Scheduler
from tools.simulated_cluster.clock.waiting import Waiting, drive
from tools.simulated_cluster.database.results import Stored
from tools.simulated_cluster.database.tables import Database
from tools.simulated_cluster.network import Network, Session
from tools.simulated_cluster.readers import Reader, Readers
from tools.simulated_cluster.world import one_owner_after_the_other


def run(scheduler: Scheduler, work: Callable[[], object], machine: Machine | None = None) -> None:
    scheduler.start(machine or Machine("one"), work)
    scheduler.run(60.0)


# -- time ---------------------------------------------------------------------------------------


def test_a_stopped_machine_does_nothing_until_it_goes_on() -> None:
    scheduler, told = Scheduler(), list[float]()
    machine = Machine("one")

    def work() -> None:
        for _ in range(3):
            scheduler.sleep(1.0)
            told.append(scheduler.now)

    scheduler.start(machine, work)
    scheduler.after(1.5, lambda: scheduler.stop(machine))
    scheduler.after(5.0, lambda: scheduler.go_on(machine))
    scheduler.run(60.0)
    assert told == [1.0, 5.0, 6.0]


def test_a_killed_machine_never_goes_on() -> None:
    scheduler, told = Scheduler(), list[float]()
    machine = Machine("one")

    def work() -> None:
        scheduler.sleep(1.0)
        told.append(scheduler.now)

    scheduler.start(machine, work)
    scheduler.after(0.5, lambda: scheduler.kill(machine))
    scheduler.run(60.0)
    assert told == []


def test_a_scope_ends_waits_sleeps_and_locks() -> None:
    scheduler = Scheduler()
    waiting, told = Waiting(scheduler), list[tuple[str, float]]()
    lock = waiting.Lock()

    async def holds() -> None:
        async with lock:
            await waiting.sleep(40.0)

    async def work() -> None:
        with waiting.move_on_after(2.0):
            await waiting.Event().wait()
            told.append(("not", 0.0))
        told.append(("event", scheduler.now))
        with waiting.move_on_after(2.0):
            await waiting.sleep(1.0)
            await waiting.sleep(9.0)
            told.append(("not", 0.0))
        told.append(("sleep", scheduler.now))
        with waiting.move_on_after(2.0):
            async with lock:
                told.append(("not", 0.0))
        told.append(("lock", round(scheduler.now, 6)))
        async with lock:
            told.append(("held", round(scheduler.now)))

    scheduler.start(Machine("other"), lambda: drive(holds()))
    run(scheduler, lambda: drive(work()))
    assert told == [("event", 2.0), ("sleep", 4.0), ("lock", 6.0), ("held", 40)]


# -- the network --------------------------------------------------------------------------------


def network(scheduler: Scheduler, seed: int = 1) -> Network:
    database = Database(lambda: scheduler.now)
    return Network(scheduler, database, random.Random(seed), ())


def test_what_is_lost_may_be_done_all_the_same() -> None:
    done, answered = 0, list[int]()
    for seed in range(60):
        scheduler = Scheduler()
        net, machine = network(scheduler, seed), Machine("one")
        net.trouble(machine).loses = 0.5

        def work(net: Network = net, machine: Machine = machine) -> None:
            with contextlib.suppress(StorageError):
                answered.append(net.ask(machine, lambda db: db.join("a", "a:1")))

        run(scheduler, work, machine)
        done += len(net.database.servers)
    assert 0 < len(answered) < done < 60


def test_a_question_is_a_transaction_a_statement_and_a_change_is_one() -> None:
    scheduler = Scheduler()
    net, machine = network(scheduler), Machine("one")
    session = Session(net, machine, random.Random(1))
    steps: list[int] = []

    def question(db: Any) -> None:
        db.do(lambda database: database.join("a", "a:1"))
        db.do(lambda database: database.join("b", "b:1"))

    def change(db: Any) -> None:
        db.join("c", "c:1")
        db.join("d", "d:1")

    def work() -> None:
        session.ask("", question)
        steps.append(net.requests)
        session.change("", change)
        steps.append(net.requests)

    run(scheduler, work, machine)
    assert steps == [2, 3]


def test_a_transaction_that_fails_changes_nothing() -> None:
    database = Database(lambda: 0.0)

    def work(db: Database) -> None:
        db.join("a", "a:1")
        raise StorageError("no")

    with pytest.raises(StorageError):
        database.transaction(work)
    assert database.servers == {} == database.leases


# -- what is wrong ------------------------------------------------------------------------------


def reader(level: Level = Level.CLUSTER) -> tuple[Reader, Readers, list[str]]:
    said: list[str] = []
    readers = Readers(Scheduler(), random.Random(1), list, lambda id_: None, said.append)
    return Reader(0, "key 0", 3, level, False, 0.0, id="g1"), readers, said


def test_a_reader_goes_on_with_what_it_has() -> None:
    one, readers, said = reader()
    readers._look(one, Stored(("1.0",)), "s0", ended=False)
    readers._look(one, Stored(("1.0", "2.1"), ((1, 9),)), "s1", ended=True)
    assert (one.seen, one.epoch, one.done, said) == (("1.0", "2.1"), 9, True, [])


@pytest.mark.parametrize(
    ("level", "told", "wrong"),
    [
        (Level.CLUSTER, Stored(("1.0", "2.7")), "piece 1 is 2.7 at s1, a reader had 1.1"),
        (Level.CLUSTER, Stored(("1.0",), ((1, 9),)), "s1 has lost what a reader was shown"),
        # At the level disk that may be, and is told by the epoch.
        (Level.DISK, Stored(("1.0", "2.7"), ((1, 9),)), ""),
        (Level.DISK, Stored(("1.0", "2.7")), "piece 1 is 2.7 at s1, a reader had 1.1"),
    ],
)
def test_another_continuation_is_wrong(level: Level, told: Stored, wrong: str) -> None:
    one, readers, said = reader(level)
    readers._look(one, Stored(("1.0", "1.1")), "s0", ended=False)
    readers._look(one, told, "s1", ended=False)
    assert said == ([f"g1: {wrong}"] if wrong else [])
    assert readers.counts["ahead"] == bool(told.splices)


def test_an_end_before_what_was_shown_is_wrong() -> None:
    one, readers, said = reader()
    readers._look(one, Stored(("1.0", "1.1")), "s0", ended=False)
    readers._look(one, Stored(("1.0",)), "the store", ended=True)
    assert said == ["g1: the store ends before what a reader was shown"]


@pytest.mark.parametrize(
    ("splices", "moved", "well"),
    [
        (((2, 9),), set(), True),
        ((), set(), False),
        ((), {2}, True),  # it was handed over with all that it had
        ((), {1}, False),
        (((2, 9), (2, 8)), set(), False),
        (((3, 8), (2, 9)), set(), False),
    ],
)
def test_an_epoch_has_one_owner(
    splices: tuple[tuple[int, int], ...], moved: set[int], well: bool
) -> None:
    result = Stored(("1.0", "1.1", "2.0"), splices)
    assert one_owner_after_the_other(result, moved) == well
