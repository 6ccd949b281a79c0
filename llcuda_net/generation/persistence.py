"""What the server keeps of its generations: the bridge to storage/, or, without it, nothing.

The journal has a token before any client has it, and a result is committed before `done` is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
import trio

from llcuda_net.config.users import Priority
from llcuda_net.errors import InvalidRequest, RequestError, StorageError, StorageUnavailable
from llcuda_net.generation.generation import Generation, State
from llcuda_net.generation.outcome import plain
from llcuda_net.storage.records import Ended, Level, Opened, Result, TokenLog
from llcuda_net.storage.results.interface import Query, Store, Summary
from llcuda_net.storage.storage import Kept, Recovered, Storage
from llcuda_protocol.kinds import MAX_LINGER

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds after which a refusal by the storage may be worth another try.
_RETRY_AFTER = 5.0
#: Pieces in one record of the journal.
_MOST_PIECES = 1024


class Persistence:
    """Keeps generations, each at its own level.

    Every method raises RequestError where the storage refuses: the request then fails, and says so.

    Args:
        storage: running; None keeps nothing.
        level: how safe a generation is before it is acknowledged, where its request does not say.
    """

    def __init__(self, storage: Storage | None, level: Level) -> None:
        self._storage = storage
        self._level = level if storage is not None else Level.MEMORY
        self._kept: dict[Generation, Kept] = {}

    @property
    def keeps(self) -> bool:
        """Whether there is a store at all."""
        return self._storage is not None

    @property
    def storage(self) -> Storage | None:
        """Where it keeps them."""
        return self._storage

    def level(self, wanted: str | None) -> Level:
        """The level in force for a request.

        Raises:
            RequestError: there is no such level.
        """
        try:
            level = self._level if wanted is None else Level(wanted)
        except ValueError:
            names = ", ".join(Level)
            raise InvalidRequest(f"there is no level {wanted!r}: choose one of {names}") from None
        return level if self._storage is not None else Level.MEMORY

    @property
    def recovered(self) -> list[Recovered]:
        """What ran when the last server ended; told once."""
        if self._storage is None:
            return []
        found, self._storage.recovered = self._storage.recovered, []
        return found

    # -- the life of a generation -------------------------------------------------------------

    def start(self, generation: Generation) -> None:
        """Take a request."""
        if self._storage is None:
            return
        request: dict[str, Any] = {
            "prompt": generation.prompt,
            "messages": generation.messages,
            "params": generation.params,
            "timeout": generation.timeout,
        }
        if generation.wanted is not None:
            request["model"] = generation.wanted
        if generation.priority is not Priority.NORMAL:
            request["priority"] = generation.priority.name.lower()
        opened = Opened(
            generation=generation.id,
            request=request,
            level=generation.level,
            key=generation.key,
            request_hash=generation.request_hash,
            owner=generation.owner,
            on_disconnect=_policy(generation.on_disconnect),
            created=generation.created,
        )
        try:
            self.resume(generation, self._storage.start(opened))
        except StorageError as error:
            raise _refused(error) from None

    def resume(self, generation: Generation, kept: Kept) -> None:
        """Go on keeping a generation where the last server stopped."""
        self._kept[generation] = kept
        generation.durable = kept.durable
        kept.watch(generation.settle)

    async def accepted(self, generation: Generation) -> None:
        """Return when the request is as safe as the level says."""
        kept = self._kept.get(generation)
        if kept is None or self._storage is None:
            return
        try:
            await self._storage.accepted(kept)
        except StorageError as error:
            raise _refused(error) from None

    def dispatched(self, generation: Generation, prompt: str | None) -> None:
        """Note who is asked, and with which prompt where the request does not say."""
        upstream, model = generation.upstream, generation.model
        self._buffer(generation, lambda kept: kept.dispatched(upstream, model, prompt))

    def spliced(self, generation: Generation, upstream: str) -> None:
        """Note that the next entry comes from another run than the one before it."""
        position, epoch = generation.splices[-1]
        self._buffer(generation, lambda kept: kept.splice(position, upstream, epoch))

    def grew(self, generation: Generation, first: int) -> None:
        """Buffer the log's entries from number `first` on; `write` comes before they are sent."""
        kept = self._kept.get(generation)
        if kept is None:
            return
        logprobs = generation.logprobs
        try:
            # In parts, since a stored log may come at once, and a record has a greatest size.
            for start in range(first, len(generation.pieces), _MOST_PIECES):
                part = slice(start, start + _MOST_PIECES)
                kept.append(
                    generation.pieces[part],
                    generation.ids[part],
                    None if logprobs is None else plain(logprobs[part]),
                    generation.counts[part],
                )
        except StorageError as error:
            raise _refused(error) from None

    def concluded(self, generation: Generation) -> None:
        """Buffer that the upstream has said the end, so that it is not asked again for it."""
        self._buffer(
            generation,
            lambda kept: kept.conclude(generation.reason, generation.stop, generation.usage),
        )

    def _buffer(self, generation: Generation, add: Callable[[Kept], None]) -> None:
        kept = self._kept.get(generation)
        if kept is not None:
            try:
                add(kept)
            except StorageError as error:
                raise _refused(error) from None

    def write(self) -> None:
        """Write all that was buffered; one system call."""
        if self._storage is not None and self._kept:
            try:
                self._storage.write()
            except StorageError as error:
                raise _refused(error) from None

    async def sync(self) -> None:
        """Return when all that was buffered is on the disk."""
        if self._storage is not None and self._kept:
            try:
                await self._storage.sync()
            except StorageError as error:
                raise _refused(error) from None

    async def finish(
        self,
        generation: Generation,
        state: State,
        error: RequestError | None,
    ) -> None:
        """Commit the result of a generation that is about to end in `state`."""
        kept = self._kept.pop(generation, None)
        if kept is None or self._storage is None:
            return
        kept.watch(None)
        ended = Ended(
            state=str(state),
            reason=generation.reason if state is State.DONE else "",
            stop=generation.stop,
            error=None if error is None else _plain_error(error),
            usage=generation.usage,
            timings=generation.phases(),
            model=generation.model,
            upstream=generation.upstream,
            seed=generation.params.get("seed"),
            cacheable=generation.cacheable,
            finished=time.time_ns(),
        )
        logprobs = None
        if generation.logprobs is not None:  # in a thread: there may be millions
            logprobs = await trio.to_thread.run_sync(plain, generation.logprobs)
        tokens = TokenLog(generation.pieces, generation.ids, logprobs)
        try:
            await self._storage.finish(kept, ended, tokens, cached_from=generation.cached_from)
        except StorageError as error_:
            raise _refused(error_) from None

    def leave(self, generation: Generation) -> None:
        """Leave a generation open in the journal, for the next server."""
        kept = self._kept.pop(generation, None)
        if kept is not None:
            kept.watch(None)

    # -- what is stored already ---------------------------------------------------------------

    async def find(self, id_: str, owner: str | None) -> Generation | None:
        """An owner's (None: anybody's) generation that is over, from its result.

        Made in a thread, for it may be large.
        """

        def made(found: Result | None) -> Generation | None:
            return None if found is None else Generation.stored(found)

        for result in self.unstored(owner):
            if result.id == id_:
                return made(result)
        return await self._read(lambda store: made(store.get(id_, owner)))

    async def find_by_key(self, key: str, owner: str) -> Result | None:
        """The newest result with this idempotency key."""
        for result in self.unstored(owner):
            if result.key == key:
                return result
        return await self._read(lambda store: store.find_by_key(key, owner))

    def will_store(self, generation: Generation) -> bool:
        """Whether its result waits for the store to take it."""
        return any(result.id == generation.id for result in self.unstored(None))

    def unstored(self, owner: str | None) -> list[Result]:
        """An owner's (None: everybody's) results that the store has not taken yet."""
        found = [] if self._storage is None else self._storage.unstored
        return [result for result in found if owner in (None, result.owner)]

    async def listed(self, query: Query) -> list[tuple[Summary, str]]:
        """What the store has, newest first, each with the beginning of its text."""
        return await self._read(lambda store: store.listed(query)) or []

    async def find_cached(
        self, model: dict[str, Any], request_hash: bytes, owner: str
    ) -> Result | None:
        """A result that answers the same request to the same model."""
        return await self._read(lambda store: store.find_cached(model, request_hash, owner))

    async def _read(self, question: Callable[[Store], _T]) -> _T | None:
        return None if self._storage is None else await self.read(question)

    async def read(self, question: Callable[[Store], _T]) -> _T:
        """Ask the store something, in a thread that runs to its end; there must be a store."""
        assert self._storage is not None
        try:
            return await self._storage.read(question)
        except StorageError as error:
            raise _refused(error) from None


def _policy(seconds: float) -> str | float:
    """A generation's `on_disconnect` in words where there are words."""
    if seconds <= 0:
        return "cancel"
    return "continue" if seconds >= MAX_LINGER else seconds


def seconds_of(policy: str | float | None) -> float:
    """The seconds that `_policy` made words of; a policy that is not known waits for ever."""
    if isinstance(policy, str) or policy is None:
        return 0.0 if policy == "cancel" else float(MAX_LINGER)
    return policy


def _plain_error(error: RequestError) -> dict[str, Any]:
    retry = {"retry": True} if error.retry else {}
    return {"code": str(error.code), "message": error.message, **retry}


def _refused(error: StorageError) -> RequestError:
    retry_after = _RETRY_AFTER if error.retry else None
    return StorageUnavailable(
        f"not kept: {error.message}", retry=error.retry, retry_after=retry_after
    )
