"""What runs of a user, and what has become of it: in events, as it changes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

import trio

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.events.entries import end_of, phase_of, run_of
from llcuda_net.server.http.exchange import HttpHost

#: Generations of which a reader is told what they do: the newest.
MOST_RUNS = 100
#: Ends that wait to be told; beyond that the reader gets all anew.
_MOST_ENDS = 200
#: Seconds between two events that say only how many tokens there are.
_COUNT_EVERY = 1.0


class _Run:
    """A generation, and what was told of it."""

    __slots__ = ("at", "state", "tokens")

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()
        self.tokens = -1
        self.at = 0.0


class RunningList:
    """A follower of a user's generations, which tells what has changed since the last time.

    Args:
        owner: whose; None: everybody's.
        wake: called when there is something to tell.
    """

    def __init__(self, host: HttpHost, owner: str | None, wake: Callable[[], None]) -> None:
        self._host = host
        self._owner = owner
        self._wake = wake
        self._runs: dict[Generation, _Run] = {}
        self._ended: list[dict[str, Any]] = []
        self._deleted: list[str] = []
        self._whole = True
        self._more = 0
        self._others: dict[Generation, _Run] = {}  # that are followed, and not of this owner
        for generation in sorted(
            host.generations.running(owner), key=lambda one: (one.created, one.id)
        ):
            self._runs[generation] = _Run()

    def __repr__(self) -> str:
        return f"<RunningList of {len(self._runs)}>"

    def __bool__(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._runs)

    def began(self, generation: Generation) -> None:
        """See RunsFollower."""
        self._runs[generation] = _Run()
        self._wake()

    def ended(self, generation: Generation) -> None:
        """See RunsFollower."""
        self._runs.pop(generation, None)
        if generation.accepted:
            self._ended.append(end_of(generation, with_owner=self._owner is None))
            self._bound(self._ended)
        self._wake()

    def deleted(self, id_: str) -> None:
        """See RunsFollower."""
        self._deleted.append(id_)
        self._bound(self._deleted)
        self._wake()

    def _bound(self, waiting: Collection[Any]) -> None:
        if len(waiting) > _MOST_ENDS:  # the reader takes nothing
            self._whole = True
            self._ended.clear()
            self._deleted.clear()

    def changes(self, followed: Collection[Generation]) -> dict[str, Any]:
        """What is to be told now.

        Args:
            followed: whose answers the reader follows: they are told of, however old they are.
        """
        told: dict[str, Any] = {"snapshot": True} if self._whole else {}
        now = trio.current_time()
        newest = dict(islice(reversed(self._runs.items()), MOST_RUNS))
        others = {
            one: self._runs.get(one) or self._others.get(one) or _Run()
            for one in followed
            if one not in newest
        }
        self._others = {one: run for one, run in others.items() if one not in self._runs}
        runs = []
        for generation, run in (newest | others).items():
            if generation.ended or not generation.accepted:
                continue  # its end is told when it is stored
            state = (generation.state, generation.place, phase_of(generation), generation.id)
            counted = generation.visible != run.tokens and now - run.at >= _COUNT_EVERY
            if self._whole or state != run.state or counted:
                run.state, run.tokens, run.at = state, generation.visible, now
                runs.append(run_of(generation, self._host.queued, with_owner=self._owner is None))
        if runs or self._whole:
            told["runs"] = runs
        more = max(0, len(self._runs) - MOST_RUNS)
        if more != self._more:
            told["more"] = self._more = more
        if self._ended:
            told["ended"], self._ended = self._ended, []
        if self._deleted:
            told["deleted"], self._deleted = self._deleted, []
        self._whole = False
        return told
