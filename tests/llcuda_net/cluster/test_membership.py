"""A server's lives, on a real PostgreSQL, with a clock that stands until it is moved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cluster import leases
from llcuda_net.cluster.membership import Membership
from llcuda_net.cluster.standing import RENEW, STOP, WEDGED, Standing
from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.replica.interface import Accept
from tests.support.processes import PATIENCE, wait_until
from tests.support.storage.postgres import Postgres

#: Seconds of a lease that no test outlives.
LONG = 3600.0


class Clock:
    """Seconds, as somebody says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A membership with its thread, and its news."""

    def __init__(self, url: str, folder: Path, name: str = "a") -> None:
        self.clock = Clock()
        self.membership = Membership(
            url, name, f"{name}:9000", folder, clock=self.clock, seconds=LONG
        )
        self.news = 0
        self.membership.on_news = self._told

    def _told(self) -> None:
        self.news += 1

    @contextmanager
    def renewing(self) -> Iterator[Membership]:
        thread = threading.Thread(target=self.membership.run)
        thread.start()
        try:
            yield self.membership
        finally:
            self.membership.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()
            self.membership.close()

    def again(self) -> None:
        """Have it renew, whatever the clock says."""
        before = self.news
        self.membership.wake()
        # One may have been under way, with the time before.
        wait_until(lambda: self.news > before + 1, "a renewal")


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@contextmanager
def database(url: str) -> Iterator[Callable[[Callable[[Connection], Any]], Any]]:
    session = Session(url, write=True)
    try:
        yield lambda change: session.change("it", change)
    finally:
        session.close()


def test_it_is_a_member_while_renewals_are_answered(url: str, tmp_path: Path) -> None:
    server = Server(url, tmp_path)
    assert server.membership.join() == server.membership.number == 1
    with server.renewing() as membership:
        server.again()
        server.clock.now += STOP - 0.1
        assert membership.standing() is Standing.MEMBER
        server.again()
        server.clock.now += STOP - 0.1
        assert membership.may_begin()  # renewed since
        assert membership.may_take_over()
        server.clock.now += 0.2
        assert membership.standing() is Standing.STOPPED
        assert not membership.may_begin()
        server.again()
        assert membership.standing() is Standing.MEMBER
        assert not membership.may_take_over()  # it was not heard for a while
        assert [member.name for member in membership.members] == ["a"]
        assert LONG - PATIENCE < membership.members[0].seconds <= LONG


def test_who_is_fenced_knows_it_by_the_next_renewal(url: str, tmp_path: Path) -> None:
    server = Server(url, tmp_path)
    number = server.membership.join()
    with server.renewing() as membership, database(url) as do:
        other = do(lambda db: leases.join(db, "b", "b:9000", LONG))
        assert do(lambda db: leases.fence_former(db, other, number))
        # It is told by the database, and looks.
        wait_until(lambda: membership.standing() is Standing.FENCED, "the fence")
        assert membership.join() == 3
        assert membership.standing() is Standing.MEMBER
        assert membership.former == ()  # the other one adopts from the former life
        membership.refused(number)  # a late answer to the former life
        assert membership.standing() is Standing.MEMBER
        membership.refused(3)
        assert membership.standing() is Standing.FENCED


def test_a_restart_ends_the_former_lives_of_its_directory(url: str, tmp_path: Path) -> None:
    first = Server(url, tmp_path)
    first.membership.join()
    first.membership.close()
    second = Server(url, tmp_path)
    number = second.membership.join()
    assert second.membership.former == (1,)
    second.membership.close()
    elsewhere = Server(url, tmp_path / "x")
    (tmp_path / "x").mkdir()
    elsewhere.membership.join()
    assert elsewhere.membership.former == ()
    elsewhere.membership.close()
    with database(url) as do:
        assert not do(lambda db: leases.renew(db, 1))
        assert do(lambda db: leases.renew(db, number))
    third = Server(url, tmp_path)
    third.membership.join()
    assert third.membership.former == (1, 2)  # its adopter is fenced by now, too
    third.membership.settled()
    third.membership.close()
    fourth = Server(url, tmp_path)
    fourth.membership.join()
    assert fourth.membership.former == (4,)
    fourth.membership.close()


def test_who_leaves_is_to_be_taken_over_at_once(url: str, tmp_path: Path) -> None:
    server = Server(url, tmp_path)
    number = server.membership.join()
    with server.renewing(), database(url) as do:
        other = do(lambda db: leases.join(db, "b", "b:9000", LONG))
        do(lambda db: leases.append(db, number, 1, b"x", [Accept("g", "")]))
        server.membership.stop()
        server.membership.leave()
        assert server.membership.standing() is Standing.FENCED
        assert do(lambda db: leases.expired(db, other)) == [number]
        assert do(lambda db: leases.fence(db, other, number))
        assert [one.number for one in do(leases.members)] == [other]


def test_who_leaves_with_nothing_leaves_nothing(url: str, tmp_path: Path) -> None:
    server = Server(url, tmp_path)
    number = server.membership.join()
    with database(url) as do:
        other = do(lambda db: leases.join(db, "b", "b:9000", LONG))
        server.membership.leave()
        server.membership.close()
        assert do(lambda db: leases.expired(db, other)) == []
        assert not do(lambda db: leases.hold(db, number))


def test_an_outage_stops_it_and_its_end_makes_it_a_member_again(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    server = Server(own_postgres.new_database(), tmp_path)
    server.membership.join()
    with server.renewing() as membership:
        server.again()
        own_postgres.kill()
        server.clock.now += RENEW
        server.again()
        assert membership.standing() is Standing.MEMBER
        server.clock.now += STOP
        assert membership.standing() is Standing.STOPPED
        assert "cannot be renewed: the database test0 at" in (membership.trouble or "")
        own_postgres.start()
        server.clock.now += RENEW
        server.again()
        wait_until(membership.may_begin, "a renewal", 60)
        assert membership.trouble is None
        server.clock.now += 0.1
        with database(own_postgres.url("test0")) as do:
            # Leases that ran out while the database was down are not held against anybody.
            other = do(lambda db: leases.join(db, "b", "b:9000", -1.0))
            assert do(lambda db: leases.expired(db, 1, LONG)) == []
            assert do(lambda db: leases.expired(db, 1, 0.0)) == [other]


def test_a_server_that_hangs_lets_its_lease_go(url: str, tmp_path: Path) -> None:
    server = Server(url, tmp_path)
    server.membership.join()
    with server.renewing() as membership:
        membership.alive()
        server.clock.now += WEDGED
        server.again()
        assert membership.standing() is Standing.MEMBER
        server.clock.now += STOP + 0.1
        server.again()
        assert membership.standing() is Standing.STOPPED  # it is not renewed
        membership.alive()
        server.again()
        assert membership.standing() is Standing.MEMBER


def test_a_name_is_one_servers_that_lives(url: str, tmp_path: Path) -> None:
    def server(folder: str, name: str = "a") -> Membership:
        (tmp_path / folder).mkdir(exist_ok=True)
        membership = Membership(url, name, f"{folder}:9000", tmp_path / folder, seconds=3.0)
        closing.callback(membership.close)
        return membership

    with ExitStack() as closing:
        first = server("first")
        first.check_name()
        first.join()
        server("first").check_name()  # a restart on the same disk
        server("second", "b").check_name()
        second = server("second")
        thread = threading.Thread(target=first.run)
        thread.start()
        try:
            with pytest.raises(StorageError, match="named a runs already, at first:9000"):
                second.check_name()
        finally:
            first.stop()
            thread.join(PATIENCE)
        # It was killed: its name is free when its lease is over.
        second.check_name()
        assert all(one.seconds <= 0 for one in second._session.ask("it", leases.members))
