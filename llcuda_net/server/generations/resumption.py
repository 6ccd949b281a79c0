"""Goes on with generations that another life had: of this server, or of one that is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

import structlog

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.errors import RequestError
from llcuda_net.generation import request as requests
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.budget import MemoryBudget
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.runner import Resumer
from llcuda_net.server.generations.launcher import Launcher
from llcuda_net.server.http.conversations.recovery import settle
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.replica.interface import Former
from llcuda_net.storage.starting import Recovered
from llcuda_net.upstream.pool import Pool

log = structlog.get_logger(__name__)


class Resumption:
    """Makes running generations of what a journal has.

    Args:
        users: whose they are.
        budget: of the memory that they take.
        resumer, launcher: run them.
        objects: conversations that wait for their answers.
    """

    def __init__(
        self,
        settings: Settings,
        users: Users,
        pool: Pool,
        persistence: Persistence,
        budget: MemoryBudget,
        resumer: Resumer,
        launcher: Launcher,
        objects: KeptObjects,
    ) -> None:
        self._settings = settings
        self._users = users
        self._pool = pool
        self._persistence = persistence
        self._budget = budget
        self._resumer = resumer
        self._launcher = launcher
        self._objects = objects

    def __repr__(self) -> str:
        return f"<Resumption to {self._launcher!r}>"

    def look(self) -> None:
        """The pool has changed: see Resumer.look."""
        self._resumer.look()

    async def adopt(self, former: Former) -> None:
        """Take over what a fenced life of a server had, and go on with it.

        Raises:
            StorageError: some of it is not taken over.
        """
        entries = await self._persistence.adopt(former.number, former.generations)
        await self.resume(entries, whole=former.whole)

    async def resume(self, entries: Sequence[Recovered], *, whole: bool = False) -> None:
        """Go on with generations that ran when the last server ended, or that are another's.

        Args:
            whole: their readers have nothing that is not in these entries.
        """
        found = []
        for entry in entries:
            try:
                found.append((self._recall(entry, whole=whole), entry))
            except Exception:  # it stays open in the journal; the others go on
                log.exception("generation_not_resumed", generation=entry.entry.opened.generation)
        # Clients that attach see the new run, so the next server must know it, too.
        with contextlib.suppress(RequestError):  # without it none of them continues
            await self._persistence.sync_all()
        found = [(one, entry) for one, entry in found if self._persistence.is_ours(one)]
        await settle(self._objects, [generation for generation, _ in found])
        for generation, entry in found:
            self._launcher.start(generation, partial(self._resumer.run, generation, entry))

    def _recall(self, entry: Recovered, *, whole: bool) -> Generation:
        """A generation that ran when the last server ended, in a new run."""
        user = self._users.named(entry.entry.opened.owner)
        generation = requests.from_journal(entry, self._settings, user)
        generation.most_bytes = self._budget.bounds.most_of_log(generation.params)
        self._persistence.resume(generation, entry.entry)
        if entry.concluded is None and whole:
            generation.fails_over("another server goes on with it")
        elif entry.concluded is None:
            # At once: a client that has more than the journal holds sees it by the epoch. Also of
            # one that seems never to have run: a power cut may have taken all of its tokens.
            generation.splice()
            # Where it continues is known here only with a single upstream.
            urls = [backend.upstream.base_url for backend in self._pool.backends]
            with contextlib.suppress(RequestError):  # then its next piece is refused, too
                self._persistence.spliced(generation, urls[0] if len(urls) == 1 else "")
        if entry.cancelled:
            generation.cancel()
        log.info(
            "generation_resumed",
            generation=generation.id,
            pieces=generation.count,
            gap=entry.gap,
        )
        return generation
