"""The simulation's model of the database says the same as PostgreSQL, statement by statement."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from llcuda_net.cluster.keys import Key
from llcuda_net.cluster.owners.loads import Load
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.migrations import migrate
from llcuda_net.storage.records import Forgotten, encode
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted
from tests.support.storage.postgres import Postgres
from tools.simulated_cluster.database.tables import STATEMENTS, Database

#: Steps per sequence.
_STEPS = 300
#: Seconds of leases: of those that hold, and of those that are over.
_HOLDS, _OVER = 3600.0, -1.0
#: Statements that are compared otherwise, or say nothing.
_NOT_DRAWN = {"identity", "secret", "join"}


class _Draw:
    """Draws arguments of the statements."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.servers = 0
        self.adopters: list[tuple[int, int]] = []  # and whom they have fenced
        self._records = 0

    def server(self) -> int:
        return self._rng.randint(1, self.servers)

    def ids(self, most: int = 4) -> list[str]:
        return [f"g{self._rng.randint(1, 12)}" for _ in range(self._rng.randint(0, most))]

    def data(self) -> bytes:
        self._records += 1
        return encode(Forgotten(self._records))

    def arguments(self, name: str) -> tuple[Any, ...]:
        rng, me = self._rng, self.server()
        if name == "renew":
            return me, rng.choice([_HOLDS, _OVER])
        if name in ("append", "added"):
            accepts = [Accept(id_, "ann") for id_ in dict.fromkeys(self.ids())]
            new = {one.id for one in accepts}
            ended = [id_ for id_ in self.ids(2) if id_ not in new]
            return me, rng.randint(1, 8), joined([self.data()]), accepts, ended
        if name == "release":
            return me, list(dict.fromkeys(self.ids()))
        if name == "trim":
            return me, rng.randint(1, 6)
        if name == "expired":
            return me, 0.0
        if name in ("fence", "fence_former", "adopted"):
            return me, self.server()
        if name == "adopt":
            found = [Adopted(id_, [self.data()], 1) for id_ in dict.fromkeys(self.ids())]
            pair = rng.choice([(me, self.server()), *self.adopters[-3:]])
            return *pair, rng.randint(9, 16), found
        if name == "hand_over":
            ids = {id_: rng.choice([1, 1, 2]) for id_ in self.ids()}
            return me, self.server(), ids, joined([self.data()])
        if name == "epoch_of":
            return me, f"g{rng.randint(1, 12)}"
        if name in ("orphaned", "release_keys"):
            return (list(dict.fromkeys(self.ids(8))),)
        if name == "claim_keys":
            wanted = [
                Key("ann", f"k{rng.randint(1, 5)}", id_, b"") for id_ in dict.fromkeys(self.ids())
            ]
            return me, wanted, self.ids(2)
        if name == "place":
            return (f"g{rng.randint(1, 12)}",)
        if name == "find_key":
            return "ann", f"k{rng.randint(1, 5)}"
        if name in ("claim", "give", "ask", "withdraw"):
            return me, [f"http://u{number}" for number in range(4) if rng.random() < 0.4]
        if name == "exchange":
            return me, Load({}, {"http://u1": "m"}, held=rng.randint(0, 9))
        return () if name in ("members", "claims", "sweep_keys") else (me,)


def _call(statement: Callable[..., Any], values: tuple[Any, ...], db: Connection) -> Any:
    return statement(db, *values)


def plain(name: str, value: Any) -> Any:
    """An answer without what depends on a clock."""
    if name == "members":
        return [(one.number, one.name, one.address) for one in value]
    if name == "journal":
        return [(number, bytes(data)) for number, data in value]
    if name == "claims":
        return [replace(one, wanted=0.0) for one in value]
    if name == "exchange":
        return [(one.server, one.load) for one in value]
    return sorted(value) if name == "unknown_keys" else value


@pytest.mark.parametrize("seed", range(6))
def test_the_model_answers_as_postgresql_does(postgres: Postgres, seed: int) -> None:
    rng = random.Random(seed)
    draw, model = _Draw(rng), Database(lambda: 0.0)
    names = [name for name in STATEMENTS if name not in _NOT_DRAWN]
    told = []
    with closing(Session(postgres.new_database(), write=True)) as session:
        migrate(session)
        for step in range(_STEPS):
            if draw.servers < 2 or rng.random() < 0.05:
                name = "join"
                values: tuple[Any, ...] = f"s{step}", "a:1", rng.choice([_HOLDS, _OVER])
                draw.servers += 1
            else:
                # Fences are rare enough that something happens before them.
                weights = [1 if "fence" in name or name == "leave" else 3 for name in names]
                name = rng.choices(names, weights)[0]
                values = draw.arguments(name)
            real = session.change("test", partial(_call, STATEMENTS[name], values))
            modelled = getattr(model, name)(*values)
            if name in ("fence", "fence_former") and real:
                draw.adopters.append((values[0], values[1]))
            told.append(f"{name}{values}: {real} and {modelled}")
            assert plain(name, real) == plain(name, modelled), "\n".join(told[-20:])
