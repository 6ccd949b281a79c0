"""Upstreams, as a simulated server sees them, and the product's decision which it asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from llcuda_net.cluster.owners.loads import Load, ModelLoad
from llcuda_net.server.cluster.owners import Owners

#: Slots of each upstream.
SLOTS = 3
#: What all serve.
_MODEL = "model"


@dataclass
class Upstreams:
    """The ways from one machine to its upstreams.

    Attributes:
        urls: all of them.
        cut: those that do not answer it.
    """

    urls: tuple[str, ...]
    cut: set[str] = field(default_factory=set)


class Pool:
    """As upstream.pool.Pool, for Owners."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._used: dict[str, int] = {}
        self.owned: frozenset[str] = frozenset()

    def own(self, urls: Collection[str]) -> None:
        """See Pool."""
        self.owned = frozenset(urls)

    def hear(self, signatures: Mapping[str, Any]) -> None:
        """See Pool: there is one model here, and nobody has a signature of it."""

    def answers(self, url: str) -> bool:
        """Whether an upstream goes on with what it makes; it does, also while it is being given."""
        return url not in self._upstreams.cut

    def free(self, used: Iterable[str]) -> Iterator[str]:
        """A free slot after the other; `used` has the upstream of each that is not."""
        self._used = dict.fromkeys(self._upstreams.urls, 0)
        for url in used:
            if url:
                self._used[url] += 1
        for url in self._upstreams.urls:
            while url in self.owned and self.answers(url) and self._used[url] < SLOTS:
                self._used[url] += 1
                yield url

    @property
    def backends(self) -> list[Any]:
        """See Pool."""
        return [
            SimpleNamespace(
                spec=SimpleNamespace(place=url),
                model=_MODEL,
                model_key="",
                answers=self.answers(url),
                loadable=False,
                owned=url in self.owned,
                in_use=self._used.get(url, 0),
            )
            for url in self._upstreams.urls
        ]


class SimulatedOwners(Owners):
    """Says what a model's load is in short, and counts nobody's tokens."""

    def __init__(self, cluster: Any, pool: Pool) -> None:
        super().__init__(cluster, pool, SimpleNamespace(), claims=True)  # type: ignore[arg-type]

    def load(self) -> Load:
        """See Owners."""
        served = [one for one in self._pool.backends if one.owned and one.answers]
        models = {_MODEL: ModelLoad((), SLOTS * len(served))} if served else {}
        reaches = {one.spec.place: one.model for one in self._pool.backends if one.answers}
        return Load(models, reaches)

    def epoch(self, url: str) -> int:
        """Of the claim by which an upstream is asked."""
        return next(one.epoch for one in self._known if one.url == url)

    def having(self) -> list[int]:
        """Servers that have an upstream, as was last heard."""
        return [one.server for one in self.others if one.load.models]

    def _count(self) -> None:
        pass
