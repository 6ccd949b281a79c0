"""A generation that another server of the cluster has, as far as this one has followed it.

All that reads generations reads it as one of this server: it is fed with what the other one sends.
It has no place in the queue, no entry in the journal, no task that makes its tokens. While nobody
reads it, nothing feeds it; whoever holds it may join it again, and it goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from llcuda_net.config.users import User
from llcuda_net.errors import Interrupted, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.persistence import read_again
from llcuda_net.generation.request import check_position
from llcuda_net.generation.state import NOT_QUEUED, Failover, Place, Reader, State, Times
from llcuda_net.server.tcp.peers.facts import Begun, Over, Run
from llcuda_net.storage.records import Result, Switch, packed
from llcuda_protocol import Accepted, Channel, Durable, Generate, Queue, TokenLogprob, Tokens

#: Seconds for which a reader waits that has more of one than has come.
_PATIENCE = 20.0


class Feeder(Protocol):
    """What feeds followed generations."""

    def wake(self, generation: Followed) -> None:
        """Somebody reads it, or wants something of it."""

    def flush(self) -> None:
        """Send what its readers have taken."""


@dataclass(slots=True)
class Link:
    """To the server that has a generation.

    Attributes:
        name: the user for whom this server reads it there; None: an admin.
        server: the life of the server that had it last; 0: nobody knows.
        linger: seconds for which it goes on without a reader: the other server's business.
        request: what the other server is to run; None: it runs already.
        ready: set once it is accepted, or over.
        news: set when the one that feeds it must look: who reads it, what is wanted of it.
        fed: whether something feeds it now.
        policy: as `linger`, where a reader here said so and the other server does not know it yet.
        stopping: whether it is to be cancelled there.
        sought: how many wait until it is accepted, or over, or look at it.
        failures: how many of the failovers that the other server has had were told.
        moved: set when more of it is here.
    """

    feeder: Feeder
    name: str | None
    server: int = 0
    linger: float = math.inf
    request: Generate | None = None
    ready: trio.Event = field(default_factory=trio.Event)
    news: trio.Event = field(default_factory=trio.Event)
    fed: bool = False
    policy: float | None = None
    stopping: bool = False
    sought: int = 0
    failures: int = 0
    moved: trio.Event = field(default_factory=trio.Event)


class Followed(Generation):
    """A generation of another server. `begun`, `asked` or `moved` makes one."""

    __slots__ = ()

    link: Link

    def __init__(self, feeder: Feeder, id_: str, name: str | None, server: int = 0) -> None:
        self.link = None  # type: ignore[assignment]
        super().__init__(None, None, {}, 0.0, id=id_, times=Times(trio.current_time()))
        self.link = Link(feeder, name, server)

    @classmethod
    def asked(
        cls,
        feeder: Feeder,
        request: Generate,
        user: User,
        server: int,
        *,
        like: Generation,
    ) -> Followed:
        """One that another server is to run.

        Args:
            request: as the user sent it, with a key.
            like: what it would be here: it is as that until the other server says more.
        """
        found = cls(feeder, like.id, user.name, server)
        found.link.request = request
        for name in (
            *("prompt", "messages", "params", "timeout", "key", "request_hash", "earlier_hash"),
            *("owner", "level", "transient", "user", "wanted", "priority", "chat", "api"),
            *("previous", "created", "logprobs"),
        ):
            setattr(found, name, getattr(like, name))
        found.link.linger = like.on_disconnect
        found.size = found._request_size = like.size
        return found

    @classmethod
    def moved(cls, feeder: Feeder, generation: Generation) -> Followed:
        """Have one that ran here, and that another server has now with all of its log, be followed.

        It stays the same object: who reads it reads on.
        """
        link = Link(feeder, generation.owner, linger=generation.on_disconnect)
        link.ready.set()
        len(generation.pieces)  # its log is not packed from now on
        generation.entry, generation.scope = None, trio.CancelScope()
        generation.suspended = generation.stranded = False
        if generation.abandoned is not None:  # that is for the other server to say
            generation.abandoned.cancel()
            generation.abandoned = None
        generation.link = link
        generation.__class__ = cls
        assert isinstance(generation, Followed)
        generation.show(len(generation.pieces))
        return generation

    # -- what readers do ----------------------------------------------------------------------

    @property
    def on_disconnect(self) -> float:
        """Seconds for which it goes on without a reader: the other server's business."""
        return self.link.linger

    @on_disconnect.setter
    def on_disconnect(self, seconds: float) -> None:
        if self.link is not None:  # else it is being made
            self.link.linger = self.link.policy = seconds
            self._wake()

    def join(self, reader: Reader) -> None:
        """See Generation."""
        super().join(reader)
        self._wake()

    def left(self) -> bool:
        """See Generation: the server that has it does."""
        if not self.readers:
            self._wake()
        return False

    def follow(self) -> None:
        """See Generation."""
        if not self.followed:
            self.followed = True
            self._wake()

    def cancel(self) -> None:
        """Have it stopped at the server that has it, also if that takes a while."""
        if not self.ended:
            self.scope.cancel()  # by it others see that it is about to end
            self.link.stopping = True
            self._wake()

    def hand_back(self, error: RequestError) -> None:
        """Read it no further here; at its server it goes on."""
        if not self.ended:
            self.end(State.FAILED, error, kept=False)
            self._wake()

    @property
    def needed(self) -> bool:
        """Whether anything is to be done for it: somebody reads it, or wants something."""
        if self.ended:
            return False
        begins = self.link.request is not None and not self.accepted
        return bool(self.readers) or self.link.stopping or begins or self.link.sought > 0

    def watch(self, watched: bool) -> None:
        """See Generation."""
        self.link.sought += 1 if watched else -1
        self._wake()

    async def wait(self) -> None:
        """Return when it is accepted, or over."""
        self.watch(True)
        try:
            await self.link.ready.wait()
        finally:
            self.watch(False)

    async def reach(self, enough: Callable[[], bool]) -> None:
        """Return when enough of it has come, or it is over; or nothing comes for too long."""
        self.watch(True)
        try:
            with trio.move_on_after(_PATIENCE) as patience:
                while not (self.ended or enough()):
                    if self.link.moved.is_set():  # several may wait for it
                        self.link.moved = trio.Event()
                    await self.link.moved.wait()
                    patience.deadline = trio.current_time() + _PATIENCE
        finally:
            self.watch(False)

    def notify(self) -> None:
        """See Generation. No publisher comes by, as for those that run here."""
        super().notify()
        self.link.moved.set()
        self.link.feeder.flush()

    def _wake(self) -> None:
        self.link.news.set()
        self.link.feeder.wake(self)

    # -- what the other server says -----------------------------------------------------------

    def begin(self, begun: Begun) -> None:
        """It is known what it is; again where another server has it now."""
        for name in (
            *("owner", "created", "params", "timeout", "key", "request_hash", "earlier_hash"),
            *("wanted", "previous", "transient", "seed", "cached_from", "api"),
        ):
            setattr(self, name, getattr(begun, name))
        self.level, self.priority = begun.level, begun.priority
        if self.link.policy is None:
            self.link.linger = begun.on_disconnect
        if begun.asked is not None and self.prompt is None and self.messages is None:
            self.prompt, self.messages, self.chat = begun.asked
            asked = self.prompt, self.messages, self.params, self.chat, self.api
            before, self._request_size = self._request_size, sizes.of_request(*asked)
            self.size += self._request_size - before
        if self.params.get("n_probs") and self.logprobs is None:
            self.logprobs = []
        self.times.received = trio.current_time() - begun.age
        # What has failed before is no news to readers here, or was told them.
        told = {one.position for one in self.failovers} if self.accepted else {self.count}
        self.link.failures = sum(
            position < self.count or position in told for position, _ in begun.run.failovers
        )
        self.run(begun.run)

    def run(self, run: Run) -> None:
        """What has changed."""
        before, now = self.epoch, trio.current_time()
        run.tell(self)
        self.link.moved.set()
        if self.accepted:
            why = "another server goes on with it"
            self.failovers += [
                Failover(position, why, now, epoch)
                for position, epoch in self.splices
                if epoch > before
            ]
        self.failovers += [Failover(*one, now) for one in run.failovers[self.link.failures :]]
        self.link.failures = len(run.failovers)

    def accepted_as(self, frame: Accepted) -> None:
        """The other server has accepted it, or found it."""
        self.id = frame.id
        self.place = _place(frame)
        if not self.accepted:
            self.accept()
        self.link.ready.set()

    def take(self, frame: Tokens) -> None:
        """Its next pieces.

        Raises:
            ValueError: they are others.
        """
        if frame.first != len(self.pieces):
            raise ValueError(f"piece {frame.first} comes, and there are {len(self.pieces)}")
        count = len(frame.pieces)
        self.pieces += frame.pieces
        self.ids += frame.ids or [None] * count
        self.counts += [1] * count
        size = sum(sizes.PIECE + 4 * len(piece) for piece in frame.pieces)
        if self.logprobs is not None:
            for tokens in frame.logprobs or [[]] * count:
                raw = packed([_plain(token) for token in tokens])
                self.logprobs.append(raw)
                size += sizes.PACKED * len(tokens) + len(raw)
        self.size += size
        if self.log_size > self.most_bytes:
            self.hand_back(sizes.grown_beyond(self.most_bytes))
            return
        times = self.times
        times.last_token = now = trio.current_time()
        if times.first_token is None:
            times.first_token = now
        self._predicted += count
        self.show(len(self.pieces))

    def switch(self, frame: Channel) -> None:
        """What follows is of another channel."""
        switch = Switch(
            frame.position, frame.channel, frame.index, frame.id or "", frame.name or ""
        )
        if switch not in self.switches:  # one that reads on is told again where it is
            if self.switches and self.switches[-1].position >= frame.position:
                return
            self.switches.append(switch)
            self.size += sizes.of_switch(switch)

    def queue(self, frame: Queue) -> None:
        """It moved in the queue."""
        self.place = _place(frame)
        self.notify()

    def settle(self, frame: Durable) -> None:
        """More of it is safe."""
        self.durable = max(self.durable, frame.count)
        self.notify()

    def finish(self, over: Over) -> None:
        """It is over, and all of its log has come."""
        if over.counts is not None and len(over.counts) == len(self.pieces):
            self.counts = over.counts
        self.splices = [*over.splices]
        self.finished = over.finished
        self.conclude(over.outcome)
        self.place = NOT_QUEUED
        self.end(State(over.state), over.failure)
        self.link.ready.set()

    def finish_as(self, result: Result) -> None:
        """It is over, and this is what was stored of it.

        What was read of it may be lost, where its server was lost with its disk: then it ends with
        an error here, and whoever asks for it anew gets what there is.
        """
        known = read_again(result)
        try:
            if self.accepted:
                check_position(known, len(self.pieces), self.epoch)
        except RequestError as error:
            self.lost_part(error)
            return
        key, prompt = self.key, self.prompt
        self.adopt(result)
        self.owner, self.model, self.wanted = known.owner, known.model, known.wanted
        self.key, self.previous, self.transient = known.key or key, known.previous, known.transient
        self.request_hash, self.priority = known.request_hash, known.priority
        self.params, self.timeout, self.seed = known.params, known.timeout, known.seed
        self.cached_from, self.accepted = result.cached_from, True
        self.prompt = prompt
        self.place = NOT_QUEUED
        self.end(State(result.state), self.error)
        self.link.ready.set()

    def lost_part(self, error: RequestError) -> None:
        """Some of what was read of it is no more."""
        self.end(State.INTERRUPTED, Interrupted(error.message, retry=True), kept=False)
        self.link.ready.set()

    def give_up(self, error: RequestError) -> None:
        """Nobody has it any more."""
        state = State.FAILED if self.link.request is not None else State.INTERRUPTED
        self.end(state, error, kept=False)
        self.link.ready.set()


def _place(frame: Accepted | Queue) -> Place:
    if not frame.position:
        return NOT_QUEUED
    return Place(frame.position, frame.wait, frame.reason or "")


def _plain(token: TokenLogprob) -> tuple[Any, ...]:
    top = [(one.id, one.bytes, one.logprob) for one in token.top]
    return token.id, token.bytes, token.logprob, top
