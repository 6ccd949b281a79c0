"""A server's place in a cluster, for tests: its database is asked at once, in the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from llcuda_net.cluster.standing import Standing
from llcuda_net.errors import LeaseLost
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.postgres.connection import Connection
from tests.support.cluster.database import Shared

_T = TypeVar("_T")


class Place:
    """What `Owners` and `Placing` ask of a cluster.

    Attributes:
        stands: what it says of its standing.
        elsewhere: generations that other servers have, by id.
        asked: how often the database was asked.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.number = shared.join()
        self.stands = Standing.MEMBER
        self.elsewhere: dict[str, Generation] = {}
        self.asked = 0

    def __repr__(self) -> str:
        return f"<Place {self.number}>"

    def standing(self) -> Standing:
        return self.stands

    def check_open(self) -> None:
        if self.stands is not Standing.MEMBER:
            raise LeaseLost("it is lost", retry=True)

    async def ask(self, what: str, question: Callable[[Connection], _T]) -> _T:
        return await self.change(what, question)

    async def change(self, what: str, change: Callable[[Connection], _T]) -> _T:
        self.asked += 1
        return self.shared.do(change)

    async def find(self, id_: str, owner: str | None) -> Generation | None:
        return self.elsewhere.get(id_)
