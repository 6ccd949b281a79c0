"""Every rank's part: a server, some requests on it at once, and messages to rank 0.

Messages to rank 0:  ("up", free) ("done", result) ("wrong", number, error) ("down", why, for good)
Messages from it:    a line to ask, or None at the end of the work
"""

from __future__ import annotations

from array import array
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from llcuda_net.batch.input import Line
from llcuda_net.batch.mpi import Communicator
from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.gateway import GatewayTarget
from llcuda_net.batch.targets.interface import PostProcess, Target
from llcuda_net.batch.targets.llama import LlamaTarget
from llcuda_net.config.upstreams import without_credentials
from llcuda_net.errors import ConfigError, ConnectError, LlcudaError, RequestError
from llcuda_protocol import ErrorCode

#: Seconds between tries to reach a server that was lost.
_PAUSE = 1.0
TO_ZERO, FROM_ZERO = "to zero", "from zero"


class OpenTarget(Protocol):
    """Connects to the rank's server, anew each time it is called."""

    def __call__(self) -> AbstractAsyncContextManager[Target]:
        """The connection, for the length of a block."""


def _no_seconds() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Tally:
    """What a rank has done: merged over the ranks at the end.

    Attributes:
        tokens, answers: that it received.
        busy: seconds that its requests were under way, all added up.
        ttft, latency: seconds of each answer, in any order: 16 bytes an answer in all.
    """

    tokens: int = 0
    answers: int = 0
    busy: float = 0.0
    ttft: array[float] = field(default_factory=_no_seconds)
    latency: array[float] = field(default_factory=_no_seconds)

    def packed(self) -> dict[str, Any]:
        """To be sent."""
        return {
            "tokens": self.tokens,
            "answers": self.answers,
            "busy": self.busy,
            "ttft": self.ttft,
            "latency": self.latency,
        }

    @classmethod
    def unpacked(cls, found: dict[str, Any]) -> Tally:
        """The inverse of `packed`."""
        return cls(**found)


def merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Two packed tallies, added up."""
    one, two = Tally.unpacked(a), Tally.unpacked(b)
    return Tally(
        one.tokens + two.tokens,
        one.answers + two.answers,
        one.busy + two.busy,
        one.ttft + two.ttft,
        one.latency + two.latency,
    ).packed()


class Rank:
    """One rank at work.

    Args:
        server: its name, for results and messages.
        open_target: connects to it.
        inflight: requests at once.
        patience: seconds for which a server that was lost is tried again.
        after: work on each answer; its seconds go into the result.
    """

    def __init__(
        self,
        communicator: Communicator,
        server: str,
        open_target: OpenTarget,
        *,
        inflight: int,
        patience: float,
        after: PostProcess | None = None,
    ) -> None:
        self.tally = Tally()
        self._communicator = communicator
        self._server = without_credentials(server)  # it goes into the output
        self._open = open_target
        self._inflight = inflight
        self._patience = patience
        self._after = after
        self._limit = trio.CapacityLimiter(inflight)
        self._target: Target | None = None
        self._asking: trio.Nursery | None = None  # of the requests on this connection
        self._broken = trio.Event()
        self._over = trio.Event()

    def __repr__(self) -> str:
        state = "connected" if self._target is not None else "not connected"
        busy = self._limit.borrowed_tokens
        return (
            f"<Rank {self._communicator.rank} at {self._server}, {state},"
            f" {busy} of {self._inflight} requests, {self.tally.answers} answers>"
        )

    async def run(self) -> None:
        """Work until rank 0 sends the end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_connected)
            await self._listen()
            self._over.set()
            self._broken.set()

    async def _listen(self) -> None:
        """Take lines, one after the other."""
        while True:
            line: Line | None = (await self._communicator.receive(FROM_ZERO))[1]
            if line is None:
                return
            # Without a connection the line is dropped: rank 0 gets "down", and takes it back.
            if self._asking is not None:
                self._asking.start_soon(self._one, line)

    def _send(self, *what: Any) -> None:
        self._communicator.send(0, TO_ZERO, (self._communicator.rank, *what))

    async def _keep_connected(self) -> None:
        """A connection, and another when it is lost, for as long as patience lasts."""
        deadline = trio.current_time()  # the first one is tried once
        while not self._over.is_set():
            try:
                async with self._open() as target:
                    await self._connected(target)
                deadline = trio.current_time() + self._patience
                why = f"{self._server} was lost"
            except (ConnectError, RequestError, ConfigError) as error:
                why = str(error)
                if not _passing(error):
                    deadline = trio.current_time()
            if self._over.is_set():
                return
            final = trio.current_time() >= deadline
            self._send("down", why, final)
            if final:
                return
            with trio.move_on_after(_PAUSE):
                await self._over.wait()

    async def _connected(self, target: Target) -> None:
        """Ask what comes until the connection breaks, which cancels what is under way."""
        self._broken = trio.Event()
        if self._over.is_set():  # while it connected: nobody will set this event
            return
        async with trio.open_nursery() as nursery:
            self._target, self._asking = target, nursery
            # A few more than are asked at once: the next one is here when one ends.
            self._send("up", self._inflight + max(1, self._inflight // 4))
            try:
                await self._broken.wait()
            finally:
                self._target = self._asking = None
                nursery.cancel_scope.cancel()

    async def _one(self, line: Line) -> None:
        """Ask one line when it has its turn, and send what came of it."""
        async with self._limit:
            await self._ask(line)

    async def _ask(self, line: Line) -> None:
        target = self._target
        if target is None:
            return
        record = Record(line.number, trio.current_time())
        more: dict[str, Any] = {}
        if line.messages is not None:
            more["messages"] = line.messages
        if isinstance(target, GatewayTarget):
            # Its result outlives us: the same line, asked again, is this generation and no other.
            more |= {"key": line.key, "on_disconnect": "continue"}
        try:
            answer = await target.ask(
                line.raw if line.raw is not None else "",
                line.params,
                record,
                trio.current_time,
                **more,
            )
        except ConnectError:
            self._broken.set()  # rank 0 gets "down", and takes the line back
            return
        except RequestError as error:
            if isinstance(target, LlamaTarget) and error.code == ErrorCode.UPSTREAM_UNAVAILABLE:
                self._broken.set()
                return
            self._wrong(line, error)
            return
        finally:
            record.ended = trio.current_time()
            self.tally.busy += record.ended - record.sent
        client: dict[str, Any] = {
            "rank": self._communicator.rank,
            "server": self._server,
            "latency_ms": round(record.service * 1e3, 3),
        }
        if record.service_ttft is not None:
            client["ttft_ms"] = round(record.service_ttft * 1e3, 3)
            self.tally.ttft.append(record.service_ttft)
        self.tally.latency.append(record.service)
        self.tally.tokens += record.tokens
        self.tally.answers += 1
        if self._after is not None:
            client["post_ms"] = round(await self._after(record, answer) * 1e3, 3)
        usage = {
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "completion_tokens": record.tokens,
        }
        self._send(
            "done",
            {
                "line": line.number,
                "id": line.id,
                "key": line.key,
                "text": answer.text,
                "reason": answer.reason,
                "model": answer.model,
                "generation": answer.id,
                "usage": usage,
                "timings": record.phases,
                "client": client,
            },
        )

    def _wrong(self, line: Line, error: RequestError) -> None:
        found = {
            "code": str(error.code),
            "message": error.message,
            "retry": error.retry,
            "retry_after": error.retry_after,
        }
        self._send("wrong", line.number, found)


def _passing(error: LlcudaError) -> bool:
    """Whether trying to connect again may help."""
    return isinstance(error, ConnectError) or (isinstance(error, RequestError) and error.retry)
