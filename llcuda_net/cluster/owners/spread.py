"""Which server is to have which upstream: a pure function of what all servers see.

Theory. Rendezvous hashing (Thaler and Ravishankar, 1998) gives each upstream to the server with the
highest hash of both, so that all agree without asking. Alone it would leave servers without any
where upstreams are few, and a server without an upstream sends all of its requests elsewhere. So
each has its part, rounded down or up; and who has an upstream keeps it within his part, so that
nothing moves which need not. The hash decides what is left. A wrong view of who lives costs time,
never safety: who may ask an upstream, the claim in the database says.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping


def weight(url: str, server: int) -> int:
    """A server's weight for an upstream: the highest one has it."""
    text = f"{server} {url}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def spread(
    reach: Mapping[int, Collection[str]],
    owners: Mapping[str, int],
    models: Mapping[str, str],
    held: Mapping[int, int] | None = None,
) -> dict[str, int]:
    """Which server is to have each upstream that any of them reaches.

    Args:
        reach: the live servers, with the URLs of the upstreams that answer each.
        owners: who has an upstream now; others than live servers are left out.
        models: of the upstreams; of equal ones a server has rather few.
        held: how many upstreams each server has that nobody else can have.
    """
    return _Spread(reach, owners, models, held or {}).run()


class _Spread:
    def __init__(
        self,
        reach: Mapping[int, Collection[str]],
        owners: Mapping[str, int],
        models: Mapping[str, str],
        held: Mapping[int, int],
    ) -> None:
        self._reach = reach
        self._owners = owners
        self._models = models
        self._urls = {url for urls in reach.values() for url in urls}
        self._count = Counter({server: held.get(server, 0) for server in reach})
        self._alike: Counter[tuple[int, str]] = Counter()
        self._found: dict[str, int] = {}

    def run(self) -> dict[str, int]:
        able = [server for server, urls in self._reach.items() if urls]
        if not able:
            return {}
        total = len(self._urls) + sum(self._count[server] for server in able)
        least, more = divmod(total, len(able))
        # Those that have most now may have one more than the others, so that least is moved.
        now = Counter(self._owners.get(url) for url in self._urls)
        order = sorted(able, key=lambda one: (-now[one] - self._count[one], one))
        parts = {server: least + (place < more) for place, server in enumerate(order)}
        for server in order:
            self._keep(server, parts[server])
        left = [url for url in self._urls if url not in self._found]
        # Who is reached by few is placed first, while there is room.
        for url in sorted(left, key=lambda one: (self._reached_by(one), one)):
            self._place(url, parts)
        return self._found

    def _reached_by(self, url: str) -> int:
        return sum(url in urls for urls in self._reach.values())

    def _keep(self, server: int, part: int) -> None:
        """What a server has and reaches, up to its part, of each model rather few."""
        mine = [url for url in self._reach[server] if self._owners.get(url) == server]
        mine.sort(key=lambda url: -weight(url, server))
        while mine and self._count[server] < part:
            url = min(mine, key=lambda one: self._alike[server, self._models.get(one, "")])
            mine.remove(url)
            self._give(url, server)

    def _place(self, url: str, parts: Mapping[int, int]) -> None:
        able = [server for server, urls in self._reach.items() if url in urls]
        model = self._models.get(url, "")

        def rank(server: int) -> tuple[bool, int, int, int]:
            full = self._count[server] >= parts[server]
            count = self._count[server] if full else 0
            return full, count, self._alike[server, model], -weight(url, server)

        self._give(url, min(able, key=rank))

    def _give(self, url: str, server: int) -> None:
        self._found[url] = server
        self._count[server] += 1
        self._alike[server, self._models.get(url, "")] += 1
