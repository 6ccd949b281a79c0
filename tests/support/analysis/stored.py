"""Embeddings as a store has them, in memory; and servers that share them in parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import trio

from llcuda_net.analysis.shards import Question, Shards
from llcuda_net.analysis.vector_index import Answer
from llcuda_net.cluster.owners.buckets import assigned
from llcuda_net.storage.results.buckets import ALL, holds
from llcuda_net.storage.results.interface import Embedding, Space, Summary

DIM = 4
SPACE = Space(7, {"name": "m"}, DIM, 1, 0)


class Stored:
    """Stands for the analyses of a store.

    Attributes:
        rows: in the order in which they were added.
        gone: numbers of results that are deleted: their embeddings are not read any more.
        damaged: numbers of results that are damaged: their embeddings still are.
        read: how many embeddings were read.
    """

    def __init__(self, rows: Iterable[Embedding], page: int = 4) -> None:
        self.rows = list(rows)
        self.gone: set[int] = set()
        self.damaged: set[int] = set()
        self.read = 0
        self.page = page

    def embeddings(
        self,
        space: int,
        after: int = 0,
        *,
        upto: int | None = None,
        buckets: int = ALL,
        owner: str | None = None,
    ) -> Iterator[list[Embedding]]:
        """See Analyses."""
        while True:
            found = [
                one
                for one in self.rows
                if space == SPACE.id
                and after < one.id
                and (upto is None or one.id <= upto)
                and holds(buckets, one.seq)
                and owner in (None, one.owner)
                and one.seq not in self.gone
            ][: self.page]
            if not found:
                return
            self.read += len(found)
            after = found[-1].id
            yield found

    def summaries(self, seqs: Collection[int]) -> dict[int, tuple[Summary, str]]:
        """See Analyses."""
        owners = {one.seq: one.owner for one in self.rows}
        return {
            seq: (Summary(str(seq), 0, 0, "done", "m", owners[seq], 1, 1, 1, ""), f"text {seq}")
            for seq in seqs
            if seq in owners and seq not in self.gone | self.damaged
        }

    def spaces(self) -> list[Space]:
        """See Analyses."""
        return [SPACE]

    async def ask(self, question: Callable[[Any], Any]) -> Any:
        """As Persistence.read, in this thread."""
        await trio.lowlevel.checkpoint()
        return question(SimpleNamespace(analyses=self))


class Server:
    """One of several that share what is stored; see OtherShards.

    Attributes:
        up: it answers.
        says: what it says that it holds; None: what it does.
        before: called when it is asked, before it answers.
        between: called when it has followed what is stored, before it searches.
    """

    def __init__(self, stored: Stored, all_of_them: dict[int, Server], number: int) -> None:
        self.number = number
        self.up = True
        self.says: int | None = None
        self.before: Callable[[], object] = lambda: None
        self.between: Callable[[], object] = lambda: None
        self.asked = 0
        self._all = all_of_them
        self._all[number] = self
        self.shards = Shards(stored.ask, trio.lowlevel.checkpoint, self)
        self._compute = self.shards._compute
        self.shards._compute = self._later  # type: ignore[method-assign,assignment]

    async def _later(self, *arguments: Any) -> Answer:
        self.between()
        return await self._compute(*arguments)

    def _others(self) -> list[Server]:
        return [one for one in self._all.values() if one is not self]

    def parts(self) -> Mapping[int, int]:
        """See OtherShards."""
        return assigned(self._all)

    def held(self, space: int) -> Mapping[int, int]:
        """See OtherShards."""
        found = {}
        for one in self._others():
            there = one.shards.holds().get(space) if one.says is None else one.says
            if there is not None:
                found[one.number] = there
        return found

    def newest_space(self) -> int | None:
        """See OtherShards."""
        return max((space for one in self._others() for space in one.shards.holds()), default=None)

    async def ask(
        self, server: int, question: Question, buckets: int, gone: Collection[int]
    ) -> Answer | None:
        """See OtherShards."""
        await trio.lowlevel.checkpoint()
        other = self._all[server]
        other.asked += 1
        other.before()
        return await other.shards.answer(question, buckets, gone) if other.up else None
