"""What the server keeps of its generations: the bridge to storage/, or, without it, nothing.

The journal has a token before any client has it, and a result is committed before `done` is sent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import structlog
import trio

from llcuda_net.config.users import PRIORITIES, Priority
from llcuda_net.errors import (
    Damaged,
    InvalidRequest,
    LeaseLost,
    OutcomeUnknown,
    RequestError,
    StorageError,
    StorageUnavailable,
)
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.aside import set_aside
from llcuda_net.generation.state import State, Times
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.records import Ended, Level, Opened, Result, TokenLog
from llcuda_net.storage.results.interface import Deleted, Query, Store, Summary
from llcuda_net.storage.starting import Recovered
from llcuda_net.storage.storage import Storage
from llcuda_net.storage.transient.results import Erased
from llcuda_protocol.kinds import MAX_LINGER

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds after which a refusal by the storage may be worth another try.
_RETRY_AFTER = 5.0


@dataclass(frozen=True)
class Left:
    """A generation that was suspended: open in the journal, and for now nobody's.

    Attributes:
        entry: its entry there.
    """

    generation: Generation
    entry: JournalEntry

    def aside(self) -> Recovered:
        """It, as a start would find it."""
        return set_aside(self.generation, self.entry)


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
        self._open: dict[JournalEntry, Generation] = {}
        self._left: list[Left] = []

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
            RequestError: there is no such level, or this server does not have it.
        """
        try:
            level = self._level if wanted is None else Level(wanted)
        except ValueError:
            names = ", ".join(Level)
            raise InvalidRequest(f"there is no level {wanted!r}: choose one of {names}") from None
        if self._storage is None:
            return Level.MEMORY
        if level.replicated and self._storage.replica is None:
            raise InvalidRequest(
                "the level cluster needs a server whose --store is a PostgreSQL database: choose "
                "strict, or what the server has without a level"
            )
        return level

    @property
    def recovered(self) -> list[Recovered]:
        """What ran when the last server ended; the second call returns nothing."""
        if self._storage is None:
            return []
        found, self._storage.recovered = self._storage.recovered, []
        return found

    # -- the life of a generation -------------------------------------------------------------

    def start(self, generation: Generation) -> None:
        """Take a request."""
        if self._storage is None or not generation.level.journalled:
            return
        opened = Opened(
            generation=generation.id,
            request=request_of(generation),
            level=generation.level,
            key=generation.key,
            request_hash=generation.request_hash,
            owner=generation.owner,
            on_disconnect=_policy(generation.on_disconnect),
            created=generation.created,
            transient=generation.transient,
        )
        with _refusing():
            self.resume(generation, self._storage.start(opened))

    def resume(self, generation: Generation, entry: JournalEntry) -> None:
        """Continue an entry of the journal where the last server stopped."""
        generation.entry = entry
        generation.durable = entry.durable
        if generation.followed:
            entry.follow()
        self._open[entry] = generation

    def is_ours(self, generation: Generation) -> bool:
        """Whether a resumed generation may go on; what the replica has of it must be known.

        Where it came into the replica only now, its idempotency key may be another one's since: it
        never was, and is forgotten here.
        """
        entry = generation.entry
        if entry is None or entry.taken is None:
            return True
        log.warning("key_was_taken", generation=generation.id, by=entry.taken)
        self.forget(entry)
        return False

    async def accepted(self, entry: JournalEntry | None) -> None:
        """Return when an entry's request, and all that came before it, are as safe as its level
        says.
        """
        if entry is None or self._storage is None:
            return
        with _refusing():
            await self._storage.accepted(entry)

    def dispatched(self, generation: Generation, prompt: str | list[int] | None) -> None:
        """Buffer which upstream is used, and the prompt if the request has messages."""
        entry = generation.entry
        if entry is not None:
            with _refusing():
                entry.dispatched(generation.upstream, generation.model, prompt)

    def spliced(self, generation: Generation, upstream: str) -> None:
        """Buffer that the next piece comes from another run than the one before it."""
        position, epoch = generation.splices[-1]
        entry = generation.entry
        if entry is not None:
            with _refusing():
                entry.splice(position, upstream, epoch)

    async def until_closed(self) -> None:
        """Tell the storage when the server ends: when this is cancelled."""
        try:
            await trio.sleep_forever()
        finally:
            if self._storage is not None:
                self._storage.close_soon()

    async def sync(self) -> None:
        """Return when all that was buffered is on the disk."""
        # Also where none is open: the last tokens of one that ends just now are shown, too.
        if self._storage is not None:
            with _refusing():
                await self._storage.sync()

    async def sync_all(self) -> None:
        """`sync`, and return when other servers could know it, too."""
        await self.sync()
        if self._storage is not None and (replica := self._storage.replica) is not None:
            with _refusing():
                await replica.until(replica.position)

    async def settled(self) -> list[Generation]:
        """Followed generations of which more is on the disk than before; waits for one."""
        if self._storage is None:
            await trio.sleep_forever()
        assert self._storage is not None
        found = []
        for entry in await self._storage.journal.progressed():
            generation = self._open.get(entry)
            if generation is not None:
                generation.durable = entry.durable
                found.append(generation)
        return found

    async def finish(
        self,
        generation: Generation,
        state: State,
        error: RequestError | None,
    ) -> RequestError | None:
        """Commit the result of a generation that is about to end in `state`.

        Returns:
            The error with which it fails instead, since the result cannot be stored; that stands
            after a restart, too, or the error says that it may not.
        """
        entry = generation.entry
        if entry is None or self._storage is None:
            return None
        self._open.pop(entry, None)
        generation.entry = None
        if entry.taken is not None:  # another one has its key: it never was
            self._storage.forget(entry)
            return None
        outcome = generation.outcome
        generation.finished = time.time_ns()
        ended = Ended(
            state=str(state),
            reason=outcome.reason if state is State.DONE else "",
            stop=outcome.stop,
            error=None if error is None else _plain_error(error),
            usage=outcome.usage,
            timings=generation.phases(),
            model=generation.model,
            upstream=generation.upstream,
            seed=generation.params.get("seed") if generation.seed is None else generation.seed,
            cacheable=generation.cacheable,
            finished=generation.finished,
        )
        tokens = TokenLog(generation.pieces, generation.ids, generation.logprobs)

        def failed(refusal: StorageError) -> Ended:
            told = _plain_error(error or refused(refusal))
            return msgspec.structs.replace(ended, state="failed", reason="", error=told)

        try:
            await self._storage.finish(
                entry, ended, tokens, cached_from=generation.cached_from, otherwise=failed
            )
        except OutcomeUnknown as refusal:
            return refused(refusal)
        except StorageError as refusal:
            if entry.taken is not None:  # that was not known before
                self._storage.forget(entry)
                return None
            if refusal.code == StorageError.FENCED:
                generation.entry = entry  # for `leave`: this is no end of it
                return refused(refusal)
            return error or refused(refusal)
        return None

    def leave(self, generation: Generation) -> None:
        """Leave a generation open in the journal, for the next server."""
        if generation.entry is not None:
            self._open.pop(generation.entry, None)
            self._left.append(Left(generation, generation.entry))

    def left(self, only: Generation | None = None) -> list[Left]:
        """What was left since the last call.

        Args:
            only: just this one, if it was left; the others stay.
        """
        if only is not None:
            found = [one for one in self._left if one.generation is only]
            self._left = [one for one in self._left if one.generation is not only]
            return found
        found, self._left = self._left, []
        return found

    def forget(self, entry: JournalEntry) -> None:
        """Another server has its generation: the journal needs it no more."""
        self._open.pop(entry, None)
        if self._storage is not None:
            self._storage.forget(entry)

    async def adopt(self, other: int, generations: Sequence[OpenGeneration]) -> list[Recovered]:
        """Take over what a fenced life of another server had; what is to go on here.

        Raises:
            StorageError: some of it is not taken over.
        """
        return [] if self._storage is None else await self._storage.adopt(other, generations)

    def begin_again(self, entries: Sequence[Recovered]) -> None:
        """Have generations that nobody has be this server's in its new life."""
        if self._storage is not None:
            for one in entries:
                self._storage.begin_again(one)

    # -- what is stored already ---------------------------------------------------------------

    async def find(self, id_: str, owner: str | None) -> Generation | None:
        """An owner's (None: anybody's) generation that is over, from its result.

        Made in a thread, for it may be large.
        """
        return await self._get(id_, owner, read_again)

    async def result_of(self, generation: Generation) -> Result | None:
        """The result of a generation that is over, to be read again; None: it was deleted."""
        return await self.result(generation.id, None)

    async def result(self, id_: str, owner: str | None) -> Result | None:
        """The result of an owner's (None: anybody's) generation; None: there is none."""
        return await self._get(id_, owner, lambda result: result)

    async def results(
        self, ids: Collection[str], owner: str | None, made: Callable[[Result], _T]
    ) -> dict[str, _T]:
        """What is made, in a thread, of those of an owner's (None: anybody's) generations among
        these that are over and kept, by id. One result at a time is in memory.
        """
        known = {one.id: one for one in self.unstored(owner) if one.id in ids}

        def read(store: Store) -> dict[str, _T]:
            found = {}
            for id_ in ids:
                result = known.get(id_) or store.get(id_, owner)
                if result is not None:
                    found[id_] = made(result)
            return found

        return await self._read(read) or {}

    async def states(self, ids: Collection[str], owner: str | None) -> dict[str, str]:
        """The states of those of an owner's (None: anybody's) generations among these that are
        over and kept, by id.
        """
        found = await self._read(lambda store: store.states(ids, owner)) or {}
        return found | {one.id: one.state for one in self.unstored(owner) if one.id in ids}

    async def _get(self, id_: str, owner: str | None, made: Callable[[Result], _T]) -> _T | None:
        for result in self.unstored(owner):
            if result.id == id_:
                return made(result)
        if self._storage is None:
            return None
        with _refusing():
            return await self._storage.get(id_, owner, made)

    async def delete(self, id_: str, owner: str | None) -> Deleted | None:
        """Delete the result of an owner's (None: anybody's) generation; None: there is none."""
        if self._storage is None:
            return None
        with _refusing():
            return await self._storage.delete(id_, owner)

    async def find_by_key(self, key: str, owner: str) -> Result | None:
        """The newest result with this idempotency key."""
        for result in self.unstored(owner):
            if result.key == key:
                return result
        if self._storage is None:
            return None
        with _refusing():
            return await self._storage.find_by_key(key, owner)

    async def erased(self) -> list[Erased]:
        """Transient generations whose results were erased since the last call; waits for one."""
        if self._storage is None:
            await trio.sleep_forever()
        assert self._storage is not None
        return await self._storage.transient.erased()

    def keeps_alone(self, id_: str) -> bool:
        """Whether one is in this data directory, and neither in the registry nor in the store: it
        is over, or was left where it was.
        """
        storage = self._storage
        return storage is not None and (
            id_ in storage.transient
            or any(one.id == id_ for one in storage.unstored)
            or any(one.generation.id == id_ for one in self._left)
        )

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
        with _refusing():
            return await self._storage.read(question)


def request_of(generation: Generation) -> dict[str, Any]:
    """What a generation was asked, as it is stored."""
    request: dict[str, Any] = {
        "prompt": generation.prompt,
        "messages": generation.messages,
        "params": generation.params,
        "timeout": generation.timeout,
    }
    if generation.chat is not None:
        request["chat"] = generation.chat
    if generation.seed is not None:
        request["seed"] = generation.seed
    if generation.wanted is not None:
        request["model"] = generation.wanted
    if generation.api is not None:
        request["api"] = generation.api
    if generation.previous is not None:
        request["previous"] = generation.previous
    if generation.priority is not Priority.NORMAL:
        request["priority"] = generation.priority.name.lower()
    return request


def read_again(result: Result) -> Generation:
    """A generation that is over, from its result: without its prompt, which may be large."""
    asked = result.request
    found = Generation(
        None,
        None,
        asked.get("params") or {},
        asked.get("timeout") or 0.0,
        key=result.key,
        request_hash=result.request_hash,
        owner=result.owner,
        wanted=asked.get("model"),
        priority=PRIORITIES.get(asked.get("priority", ""), Priority.NORMAL),
        id=result.id,
        created=result.created,
        times=Times(0.0),
        model=result.model,
        seed=asked.get("seed"),
        api=asked.get("api"),
        previous=asked.get("previous"),
        transient=result.transient,
    )
    found.adopt(result)
    found.accepted = True
    found.cached_from = result.cached_from
    found.state = State(result.state)
    found.ended = True
    return found


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


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise refused(error) from None


def refused(error: StorageError) -> RequestError:
    """The error for a request, of one that the storage raised."""
    if error.code == StorageError.DAMAGED:
        return Damaged(error.message)
    if error.code == StorageError.FENCED:
        return LeaseLost(error.message, retry=True)
    retry_after = _RETRY_AFTER if error.retry else None
    return StorageUnavailable(error.message, retry=error.retry, retry_after=retry_after)
