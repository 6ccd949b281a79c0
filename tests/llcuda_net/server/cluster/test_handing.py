"""What waits at a server goes to another one: which, when, and how many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import trio

from llcuda_net.cluster.standing import Standing
from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest, Ticket
from llcuda_net.server.cluster import handing
from llcuda_net.server.cluster.handing import DUE, LOOK, SETTLED, Handing
from llcuda_net.storage.replica.interface import Former


class Rig:
    """A server with one slot, which is in use, and another one with some that are free.

    Attributes:
        free: slots of the other server.
        moved: which generations are followed now, in their order.
        before_commit: called when one is about to go.
    """

    number = 1

    def __init__(self) -> None:
        self.free = 0
        self.moved: list[str] = []
        self.before_commit: Callable[[], None] = lambda: None
        self.running: dict[str, tuple[Generation, Ticket]] = {}
        self.pool = SimpleNamespace(meanings=lambda: {"key": "m"})
        self.registry = SimpleNamespace(find=lambda id_, owner: None)
        self.slot: list[Ticket] = []
        self.scheduler = Scheduler(self._place, 100)
        self.handing = Handing(self, self, lambda name: None, self._room, self._moved)  # type: ignore[arg-type]
        self.begin("holder")

    def _place(self, ticket: Ticket) -> Any:
        if self.slot:
            return None
        self.slot.append(ticket)
        return SimpleNamespace(release=lambda: self.slot.remove(ticket))

    def begin(self, id_: str, *, mirrored: bool = True, user: User = User("ann")) -> None:  # noqa: B008
        found = Generation("p", None, {}, 1.0, id=id_)
        found.accepted = True
        found.entry = SimpleNamespace(mirrored=mirrored)  # type: ignore[assignment]
        self.running[id_] = found, self.scheduler.submit(SlotRequest(user, "key"))

    def end(self, id_: str) -> None:
        self.scheduler.remove(self.running[id_][1])
        self.scheduler.dispatch()

    def _room(self, name: str) -> int | None:
        assert name == "m"
        if not self.free:
            return None
        self.free -= 1
        return 2

    def _moved(self, generation: Generation) -> None:
        self.moved.append(generation.id)

    # -- what a cluster and a gateway are asked -----------------------------------------------

    def standing(self) -> Standing:
        return Standing.MEMBER

    async def change(self, what: str, change: Any) -> bool:
        return True

    def without_upstream(self) -> list[Any]:
        return []

    def short_of_slots(self, since: float) -> list[tuple[Generation, Ticket]]:
        owners = {ticket: generation for generation, ticket in self.running.values()}
        return [(owners[one], one) for one in self.scheduler.short_of_slots(since)]

    async def committed(self) -> None:
        self.before_commit()
        await trio.lowlevel.checkpoint()

    def left_aside(self, only: Generation) -> list[Any]:
        assert only.scope.cancel_called
        self.scheduler.remove(self.running[only.id][1])
        return [SimpleNamespace(generation=only)]

    def forget(self, left: Any) -> None:
        pass


@asynccontextmanager
async def rig(monkeypatch: Any) -> AsyncIterator[Rig]:
    monkeypatch.setattr(handing, "_records", lambda left: b"")
    found = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.scheduler.run)
        nursery.start_soon(found.handing.run)
        yield found
        nursery.cancel_scope.cancel()


async def test_what_waits_goes_in_its_order_as_much_as_there_are_slots_for(
    monkeypatch: Any, autojump_clock: object
) -> None:
    async with rig(monkeypatch) as server:
        for id_ in ("a", "b", "c"):
            server.begin(id_)
        await trio.sleep(DUE + 2.5 * LOOK)  # between two looks
        assert (server.moved, server.handing.due) == ([], {"key": 3})
        server.free = 2
        await trio.sleep(2 * LOOK)
        assert (server.moved, server.handing.due) == (["a", "b"], {"key": 1})
        assert server.handing.handed == 2
        assert server.running["c"][1].position == 1


async def test_what_has_not_waited_for_long_stays(monkeypatch: Any, autojump_clock: object) -> None:
    async with rig(monkeypatch) as server:
        server.free = 9
        server.begin("a")
        await trio.sleep(DUE - LOOK / 2)
        assert (server.moved, server.handing.due) == ([], {})
        await trio.sleep(2 * LOOK)
        assert server.moved == ["a"]


async def test_what_no_other_server_can_have_stays(
    monkeypatch: Any, autojump_clock: object
) -> None:
    async with rig(monkeypatch) as server:
        server.free = 9
        server.begin("memory", mirrored=False)
        limited = User("bob", max_running=0)
        server.begin("limited", user=limited)
        await trio.sleep(DUE + 2 * LOOK)
        assert (server.moved, server.handing.due) == ([], {})


async def test_what_came_from_another_server_stays_for_a_while(
    monkeypatch: Any, autojump_clock: object
) -> None:
    async with rig(monkeypatch) as server:
        server.free = 9
        server.begin("came")
        came: Any = [SimpleNamespace(id="came")]
        server.handing.came(Former(2, came, whole=True))
        await trio.sleep(SETTLED - LOOK)
        assert (server.moved, server.handing.due) == ([], {})
        await trio.sleep(3 * LOOK)
        assert server.moved == ["came"]


async def test_what_gets_a_slot_meanwhile_stays(monkeypatch: Any, autojump_clock: object) -> None:
    async with rig(monkeypatch) as server:
        server.free = 1
        server.begin("a")
        server.before_commit = lambda: server.end("holder")
        await trio.sleep(DUE + 3 * LOOK)
        assert server.running["a"][1].lease is not None
        assert server.moved == []
        assert not server.running["a"][0].suspended
