"""Who is told when a generation begins, ends or is deleted: what shows a user what runs.

Nothing here is called per token. What has become of a generation meanwhile its follower sees at it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from llcuda_net.generation.generation import Generation


class RunsFollower(Protocol):
    """What shows the generations of an owner."""

    def began(self, generation: Generation) -> None:
        """A generation begins: it waits, or runs."""

    def ended(self, generation: Generation) -> None:
        """A generation is over, and stored as far as it is to be."""

    def deleted(self, id_: str) -> None:
        """A generation that was over is there no more."""


class Runs:
    """Tells those who follow an owner's generations, or everybody's."""

    def __init__(self) -> None:
        self._followers: defaultdict[str | None, list[RunsFollower]] = defaultdict(list)

    def __repr__(self) -> str:
        return f"<Runs, {sum(map(len, self._followers.values()))} followers>"

    @contextmanager
    def following(self, owner: str | None, follower: RunsFollower) -> Iterator[None]:
        """Within the block, a follower is told of an owner's generations (None: of everybody's)."""
        self._followers[owner].append(follower)
        try:
            yield
        finally:
            self._followers[owner].remove(follower)
            if not self._followers[owner]:
                del self._followers[owner]

    def began(self, generation: Generation) -> None:
        """See RunsFollower."""
        for follower in self._of(generation.owner):
            follower.began(generation)

    def ended(self, generation: Generation) -> None:
        """See RunsFollower."""
        for follower in self._of(generation.owner):
            follower.ended(generation)

    def deleted(self, id_: str, owner: str) -> None:
        """See RunsFollower."""
        for follower in self._of(owner):
            follower.deleted(id_)

    def _of(self, owner: str) -> Iterator[RunsFollower]:
        for one in (owner, None):
            yield from self._followers.get(one, ())
