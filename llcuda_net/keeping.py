"""What the server keeps of its generations: the bridge to storage/, or, without it, nothing.

The journal has a token before any client has it, and a result is committed before `done` is sent.
"""

from __future__ import annotations

import time
from typing import Any

import structlog

from llcuda_net.errors import RequestError, StorageError
from llcuda_net.generations import Generation, State
from llcuda_net.storage.pipeline import Kept, Recovered, Storage
from llcuda_net.storage.records import Ended, Level, Logprobs, Opened, TokenLog, hash_of
from llcuda_net.upstream.interface import Properties
from llcuda_protocol import ErrorCode, TokenLogprob

log = structlog.get_logger(__name__)

#: Seconds after which a refusal by the storage may be worth another try.
_RETRY_AFTER = 5.0


class Keeper:
    """Keeps generations at one level.

    Every method raises RequestError where the storage refuses: the request then fails, and says so.

    Args:
        storage: running; None keeps nothing.
        level: how safe a generation is before it is acknowledged.
    """

    def __init__(self, storage: Storage | None, level: Level) -> None:
        self._storage = storage
        self.level = level if storage is not None else Level.MEMORY
        self._kept: dict[Generation, Kept] = {}

    @property
    def strict(self) -> bool:
        """Whether tokens wait for the disk before they are sent."""
        return self.level is Level.STRICT

    def start(self, generation: Generation) -> None:
        """Take a request."""
        if self._storage is None:
            return
        request = {
            "prompt": generation.prompt,
            "messages": generation.messages,
            "params": generation.params,
            "timeout": generation.timeout,
        }
        try:
            self._kept[generation] = self._storage.start(
                Opened(
                    generation=generation.id,
                    request=request,
                    level=self.level,
                    request_hash=hash_of(request),
                    created=time.time_ns(),
                )
            )
        except StorageError as error:
            raise _refused(error) from None

    async def accepted(self, generation: Generation) -> None:
        """Return when the request is as safe as the level says."""
        kept = self._kept.get(generation)
        if kept is None or self._storage is None:
            return
        try:
            await self._storage.accepted(kept)
        except StorageError as error:
            raise _refused(error) from None

    def grew(self, generation: Generation, first: int) -> None:
        """Buffer the log's entries from number `first` on; `write` comes before they are sent."""
        kept = self._kept.get(generation)
        if kept is None:
            return
        logprobs = generation.logprobs
        try:
            kept.append(
                generation.pieces[first:],
                generation.ids[first:],
                None if logprobs is None else _plain(logprobs[first:]),
            )
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
        *,
        properties: Properties | None,
        upstream: str,
    ) -> None:
        """Commit the result of a generation that is about to end in `state`."""
        kept = self._kept.pop(generation, None)
        if kept is None or self._storage is None:
            return
        ended = Ended(
            state=str(state),
            reason=generation.reason if error is None else "",
            stop=generation.stop,
            error=None if error is None else {"code": str(error.code), "message": error.message},
            usage=generation.usage,
            timings=generation.phases(),
            model=_fingerprint(properties),
            upstream=upstream,
            seed=generation.params.get("seed"),
            finished=time.time_ns(),
        )
        logprobs = generation.logprobs
        tokens = TokenLog(
            generation.pieces,
            generation.ids,
            None if logprobs is None else _plain(logprobs),
        )
        try:
            await self._storage.finish(kept, ended, tokens)
        except StorageError as error_:
            raise _refused(error_) from None

    async def end_interrupted(self) -> None:
        """Store, as interrupted, what ran when the last server ended."""
        if self._storage is None:
            return
        found, self._storage.recovered = self._storage.recovered, []
        for entry in found:
            await self._interrupt(self._storage, entry)
        if found:
            log.warning("generations_interrupted", count=len(found))

    async def _interrupt(self, storage: Storage, entry: Recovered) -> None:
        usage = {"completion_tokens": len(entry.log.pieces)}
        ended = Ended(state=str(State.INTERRUPTED), usage=usage, finished=time.time_ns())
        try:
            await storage.finish(entry.kept, ended, entry.log)
        except StorageError as error:
            log.error("not_stored", generation=entry.kept.opened.generation, reason=error.message)


def _fingerprint(properties: Properties | None) -> dict[str, Any]:
    if properties is None:
        return {}
    return {
        "name": properties.model,
        "build": properties.build,
        "context": properties.context,
    }


def _plain(logprobs: list[list[TokenLogprob]]) -> Logprobs:
    """Log-probabilities as lists, as the wire has them."""
    return [
        [(t.id, t.bytes, t.logprob, [(c.id, c.bytes, c.logprob) for c in t.top]) for t in piece]
        for piece in logprobs
    ]


def _refused(error: StorageError) -> RequestError:
    retry_after = _RETRY_AFTER if error.retry else None
    return RequestError(
        ErrorCode.STORAGE, f"not kept: {error.message}", retry=error.retry, retry_after=retry_after
    )
