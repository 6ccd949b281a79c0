"""The generation: the server's run of a request, which belongs to no connection.

It has an id, a state and an ordered token log. Streams read the log at their own pace, so a slow
reader never holds it up; the log is bounded by n_predict and the context.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import trio

from llcuda_net.config.users import ANONYMOUS, Priority, User
from llcuda_net.errors import RequestError
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.state import (
    NOT_QUEUED,
    TRANSITIONS,
    Failover,
    Outcome,
    Place,
    Reader,
    State,
    Times,
    outcome_of,
    packed_token,
    stored_error,
    stored_outcome,
)
from llcuda_net.storage import channels
from llcuda_net.storage.channels import BEGINNING, TOOL_CALL, Part
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.packed_log import PackedLog
from llcuda_net.storage.records import Level, Logprobs, Result, Switch, TokenLog, packed
from llcuda_net.upstream.interface import Channel, CompletionEvent, Probabilities
from llcuda_net.util.time_ids import next_epoch, uuid7
from llcuda_protocol.kinds import MAX_LINGER

_TEXT = Channel(channels.TEXT)
#: What a generation does not have while its log is packed.
_LOG = ("pieces", "ids", "counts", "logprobs")


@dataclass(slots=True, eq=False, weakref_slot=True)
class Generation:
    """One run of a request.

    Attributes:
        key: the idempotency key.
        request_hash: equal for requests that ask for the same.
        earlier_hash: what earlier servers stored in its place: of the same number as an integer
            and as a float they made two hashes.
        on_disconnect: seconds for which it continues without a reader.
        level: how much it survives.
        cache: may be answered with the stored result of the same request.
        fresh: no stored result can have its key.
        transient: all of it is erased a while after its end.
        user: who sent the request; `owner` is their name.
        wanted: the model that the request names.
        priority, deadline: see tickets.Claim.
        pieces: the text so far, one entry an event of the upstream.
        ids: beside each piece, the id of its last token, or None.
        counts: beside each piece, how many tokens it stands for.
        logprobs: beside each piece its tokens, encoded; None unless n_probs asked for them.
        accepted: whether the request is as safe as its level says; nothing is sent before.
        visible: how many pieces may be sent: those that are as safe as the level says.
        durable: how many pieces a power cut can no longer take away.
        followed: whether a reader wants to be told of `durable`, which may lag behind otherwise.
        splices: where it was continued after the loss of what ran it, 0 where it began anew, and
            the epoch of each: what names that run of it.
        readers: what reads it.
        place: where it stands in the queue.
        entry: its entry in the journal; None where there is none.
        model, upstream: what it was last dispatched to: the model's fingerprint, and where.
        rendered: the prompt, as the model's chat template made it of messages.
        failovers: each time that an upstream failed at it and another one, or that one again, was
            asked to go on.
        noted: the last piece before which the journal knows of one.
        chat: options of the chat (tools and the like), by the names of OpenAI's API; see
            Upstream.chat.
        seed: what its tokens are drawn with where its parameters name no seed, so that it can run
            again; None: they do, or it is of a server that gave none.
        switches: where the log changes between text, reasoning and tool calls. Each is at a piece
            that is there, and visible when that is.
        api: what a reader over HTTP needs to see the answer in the shape of the API that began
            it; None: it began elsewhere.
        previous: the id of the generation whose conversation it goes on with; all messages of that
            are among its own.
        cacheable: whether the same request may be answered with its result.
        stranded: it waits for an upstream that is not there, after a restart.
        suspended: it stops here without having ended: the next server continues it.
        link: to the server that has it, of one that runs elsewhere; see
            server/cluster/peers/followed.py.
        cancelled: somebody wants it to end. Of one that is suspended, too: who goes on with it
            ends it.
        cached_from: the result whose log answers it.
        ended: whether it is over, however it ended.
        finished: when that was, in nanoseconds since 1970; None while it is not known.
        most_bytes: that its log may take; one that grows beyond that is ended with an error.
        size: bytes of memory that its request and its log take, estimated.
        shelved: how many pieces the log had that was dropped from memory; None: it is here.
        lost: why a log that was dropped cannot be had again.
        packed: the log, of one that the last server left and nobody has looked at yet: it waits
            with a tenth of the memory. It is unpacked by whoever reads `pieces` or what is beside
            them.
    """

    prompt: str | list[int] | None
    messages: list[dict[str, Any]] | None
    params: dict[str, Any]
    timeout: float
    key: str | None = None
    request_hash: bytes = b""
    earlier_hash: bytes = b""
    owner: str = ""
    on_disconnect: float = MAX_LINGER
    level: Level = Level.MEMORY
    cache: bool = False
    fresh: bool = True
    transient: bool = False
    user: User = ANONYMOUS
    wanted: str | None = None
    priority: Priority = Priority.NORMAL
    deadline: float = math.inf
    id: str = field(default_factory=uuid7)
    created: int = field(default_factory=time.time_ns)
    finished: int | None = None
    state: State = State.QUEUED
    ended: bool = False
    most_bytes: int = sys.maxsize
    size: int = 0
    shelved: int | None = None
    lost: RequestError | None = None
    packed: PackedLog | None = None
    pieces: list[str] = field(default_factory=list)
    ids: list[int | None] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    logprobs: Logprobs | None = None
    times: Times = field(default_factory=lambda: Times(trio.current_time()))
    accepted: bool = False
    visible: int = 0
    durable: int = 0
    followed: bool = False
    splices: list[tuple[int, int]] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    place: Place = NOT_QUEUED
    entry: JournalEntry | None = None
    rendered: str | list[int] | None = None
    failovers: list[Failover] = field(default_factory=list)
    noted: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    upstream: str = ""
    cacheable: bool = False
    stranded: bool = False
    suspended: bool = False
    cancelled: bool = False
    cached_from: str | None = None
    chat: dict[str, Any] | None = None
    seed: int | None = None
    switches: list[Switch] = field(default_factory=list)
    api: dict[str, Any] | None = None
    previous: str | None = None
    error: RequestError | None = None
    final: CompletionEvent | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    abandoned: trio.CancelScope | None = None
    link: Any = None
    _told: Outcome | None = None
    _channel: Channel | None = None  # of the last piece; None: text
    _held: Logprobs = field(default_factory=list)  # of tokens without text so far
    _request_size: int = 0
    _before: int = 0  # tokens before the last continuation
    _predicted: int = 0  # tokens since, by the upstream's count
    _made: int = 0  # tokens of earlier runs in this process
    _again: int = 0  # of the tokens since, those that an earlier run had made
    _shown: int = 0  # tokens of the log, while a run that begins anew has made fewer

    def __post_init__(self) -> None:
        if self.params.get("n_probs"):
            self.logprobs = []
        self.size = self._request_size = sizes.of_request(
            self.prompt, self.messages, self.params, self.chat, self.api
        )

    def __repr__(self) -> str:
        upstream = f" at {self.upstream}" if self.upstream else ""
        return (
            f"<Generation {self.id} {self.state} pieces={self.count}"
            f" visible={self.visible} durable={self.durable} readers={len(self.readers)}{upstream}>"
        )

    @property
    def epoch(self) -> int:
        """What names the run that makes it now; 0 is the first."""
        return self.splices[-1][1] if self.splices else 0

    @property
    def count(self) -> int:
        """How many pieces its log has, here or in the store."""
        if self.packed is not None:
            return self.packed.count
        return len(self.pieces) if self.shelved is None else self.shelved

    @property
    def log_size(self) -> int:
        """Bytes of memory that its log takes, estimated."""
        return self.size - self._request_size

    def channel_at(self, position: int) -> Switch:
        """Of which channel a piece is: the last switch up to it."""
        return channels.channel_at(self.switches, position)

    def parts(self, first: int, behind: int) -> Iterable[Part]:
        """Pieces `first` up to `behind`, cut where they are of different channels."""
        if not self.switches:
            return (Part(first, behind, BEGINNING),) if first < behind else ()
        return channels.parts(self.switches, behind, first)

    def text_pieces(self, count: int | None = None) -> Iterable[str]:
        """Its pieces, or the first so many, that are text: neither reasoning nor a tool call."""
        if self.packed is not None:  # it stays so, and the first pieces may be enough
            found = islice(self.packed.pieces(), count)
            return channels.text_pieces(list(found), self.switches) if self.switches else found
        pieces = self.pieces if count is None else self.pieces[:count]
        return channels.text_pieces(pieces, self.switches)

    def join(self, reader: Reader) -> None:
        """One more reads it."""
        self.readers.append(reader)
        if self.abandoned is not None:
            self.abandoned.cancel()
            self.abandoned = None

    def watch(self, watched: bool) -> None:
        """Somebody looks at what it has from now on, or no more, without being a reader."""

    def left(self) -> bool:
        """A reader has left; whether this server says for how long it goes on without one."""
        return True

    def follow(self) -> None:
        """A reader wants to be told of `durable`."""
        self.followed = True
        if self.entry is not None:
            self.entry.follow()
            self.durable = max(self.durable, self.entry.durable)

    def move(self, state: State) -> None:
        """Change the state, and notify the readers."""
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a generation cannot go from {self.state} to {state}")
        self.state = state
        self.ended = not TRANSITIONS[state]
        self.notify()

    def notify(self) -> None:
        """There is something to send."""
        for reader in tuple(self.readers):
            reader.pump()

    def queued(self, position: int, wait: float | None, reason: str) -> None:
        """The queue moved."""
        self.place = Place(position, wait, reason)
        self.notify()

    def accept(self) -> None:
        """The request is as safe as its level says."""
        self.accepted = True
        self.notify()

    def show(self, count: int) -> None:
        """Let the streams send the first `count` pieces."""
        self.visible = count
        self.notify()

    def extend(self, events: list[CompletionEvent], now: float | None = None) -> bool:
        """Append a batch of the upstream's events.

        The readers get the new pieces from `show`, after these are in the journal.

        Args:
            now: on trio's clock; None: ask it.

        Returns:
            Whether there is something for the journal: pieces, or the end.
        """
        grown = over = False
        pieces, logprobs = self.pieces, self.logprobs
        for event in events:
            content = event.content
            if event.stop:
                self.final = event
                over = True
            # What is held back has no text yet, and comes with what releases it, or at the end.
            if logprobs is not None and event.completion_probabilities:
                self._hold(event.completion_probabilities)
            switched = event.channel is not self._channel and self._switch(event)
            if content or switched or (event.stop and self._held):
                pieces.append(content)
                tokens = event.tokens
                self.ids.append(tokens[-1] if tokens else None)
                before = self._predicted
                self._predicted = predicted = event.tokens_predicted or before + 1
                self.counts.append(predicted - before if predicted > before else 1)
                self.size += sizes.PIECE + 4 * len(content)
                if logprobs is not None:
                    logprobs.append(packed(self._held))
                    self._held.clear()
                grown = True
        if self.size - self._request_size > self.most_bytes:
            self.hand_back(sizes.grown_beyond(self.most_bytes))
        if grown:
            times = self.times
            times.last_token = now = trio.current_time() if now is None else now
            if times.first_token is None:
                times.first_token = now
        return grown or over

    def _switch(self, event: CompletionEvent) -> bool:
        """Note that the next piece is of another channel; whether that makes a piece of its own."""
        channel = event.channel or _TEXT
        now = self._channel or _TEXT
        is_call = channel.kind == TOOL_CALL
        if channel[:2] == now[:2] or not (event.content or is_call):
            return False  # the same, or nothing yet
        self._channel = event.channel
        switch = Switch(len(self.pieces), *channel)
        self.switches.append(switch)
        self.size += sizes.of_switch(switch)
        return is_call

    def _hold(self, found: list[Probabilities]) -> None:
        most = self.params["n_probs"]
        for one in found:
            raw = packed_token(one, most)
            self._held.append(raw)
            self.size += sizes.PACKED + len(raw)

    def restore(
        self,
        log: PackedLog,
        splices: list[tuple[int, int]],
        switches: Sequence[Switch] = (),
    ) -> None:
        """Take over what there was when the last server ended."""
        if log.count:
            self.packed = log
            self.__class__ = _Packed
            self._switch_to(switches)
            self.size = self._request_size + log.size + sum(map(sizes.of_switch, switches))
            for name in _LOG:
                delattr(self, name)
        self.visible = self.count
        self.splices = splices
        self.accepted = True

    def _unpack(self) -> None:
        assert self.packed is not None
        self.__class__ = Generation
        log, self.packed = self.packed.unpack(), None
        self.logprobs = None
        self.adopt_log(log, self.switches)

    def _switch_to(self, switches: Sequence[Switch]) -> None:
        self.switches = list(switches)
        self._channel = Channel(*switches[-1][1:]) if switches else None

    def adopt_log(self, log: TokenLog, switches: Sequence[Switch] = ()) -> None:
        """Take over a log; what may be sent of it is for the caller to say."""
        self._switch_to(switches)
        self.pieces = list(log.pieces)
        self.ids = list(log.ids)
        self.counts = list(log.counts or [1] * len(self.pieces))
        if log.logprobs is not None:
            self.logprobs = list(log.logprobs)
        elif self.pieces:  # there are none beside them
            self.logprobs = None
        self.size = self._request_size + sizes.of_log(log, switches)

    def adopt(self, result: Result) -> None:
        """Become what is stored: the end of this generation, or of the one that answers it."""
        self.adopt_log(result.log, result.switches)
        self.api = result.request.get("api")
        self.created = result.created
        self.finished = result.finished
        self.visible = len(self.pieces)
        level = result.level
        self.durable = self.visible if level.synced or level.replicated else 0
        self.level = result.level
        self.splices = [(splice.position, splice.epoch) for splice in result.splices]
        self._told = stored_outcome(result)
        self.error = stored_error(result) or self.error

    def splice(self) -> None:
        """What comes next is of another run."""
        self.splices.append((self.count, next_epoch(self.epoch)))

    def same_since(self, epoch: int) -> int:
        """How many pieces are as a reader has them that last read in this epoch."""
        epochs = {0, *(of for _, of in self.splices)}
        # One that is not known was lost, and with it what was read of it, and when that was.
        later = [position for position, of in self.splices if epoch not in epochs or of > epoch]
        return min([self.count, *later])

    def has(self, count: int, epoch: int) -> bool:
        """Whether it can be said which of a reader's pieces are as that has them.

        Args:
            count: those that it has.
            epoch: in which it last read.
        """
        later = [position for position, of in self.splices if of > epoch]
        return epoch <= self.epoch and self.count >= min([count, *later])

    async def reach(self, enough: Callable[[], bool]) -> None:
        """Return when enough of it is here; one that runs here has all that there is."""
        await trio.lowlevel.checkpoint()

    def continued(self, tokens: int) -> None:
        """The upstream is prompted again with everything so far: `tokens` of it generated."""
        self._made = self.made
        self._before = tokens
        self._predicted = self._again = self._shown = 0
        self._held.clear()  # comes again
        self.final = None

    def runs_again(self) -> None:
        """An upstream begins it anew; what comes is only shown from the end of the log on."""
        self.continued(0)
        self._shown = sum(self.counts)

    def replayed(self, tokens: int) -> None:
        """So many tokens of the log have come again."""
        self._predicted = self._again = tokens
        self.times.replayed = trio.current_time()

    def fails_over(self, reason: str) -> None:
        """What comes next is made by another upstream. Nothing is lost by it: the epoch stays."""
        position = self.count
        if position and (not self.splices or self.splices[-1][0] != position):
            self.splices.append((position, self.epoch))
        elif not any(one.position == position for one in self.failovers):
            self.noted = position  # the journal has it since the restart
        self.final = None
        self.failovers.append(Failover(position, reason, trio.current_time()))
        self.notify()

    def dispatched(self) -> None:
        """It holds a slot of an upstream."""
        self.place = NOT_QUEUED
        if self.state is State.QUEUED:
            self.times.dispatched = trio.current_time()
            self.move(State.RUNNING)
        else:
            self.notify()

    def sent(self) -> None:
        """The upstream has the request."""
        self.times.sent = trio.current_time()

    def end(self, state: State, error: RequestError | None, *, kept: bool = True) -> None:
        """End it; the streams send what may be sent, and then how it ended.

        Args:
            kept: whether all of the log is as safe as its level says.
        """
        self.error = error
        if error is not None:
            # Its traceback has frames that have this generation: a circle, which would keep the log
            # until the garbage collector comes by.
            error.__traceback__ = error.__context__ = None
        if kept:
            self.visible = len(self.pieces)
        if self.finished is None:
            self.finished = time.time_ns()
        self.move(state)

    def shelve(self) -> None:
        """Drop the log, which the store has; `unshelve` brings it back."""
        if self.shelved is None:
            self.shelved = len(self.pieces)
            self._drop_log()

    def unshelve(self, result: Result) -> None:
        """Take the log back; readers go on where they were."""
        self.shelved = None
        self.adopt_log(result.log, result.switches)
        self.notify()

    def lose(self, error: RequestError) -> None:
        """Drop the log for good: readers that have not read all of it get an error."""
        if self.lost is None:
            self.lost = error
            self.shelve()
            self.notify()

    def _drop_log(self) -> None:
        self.pieces, self.ids, self.counts, self.switches = [], [], [], []
        self.logprobs = None if self.logprobs is None else []
        # What it was asked is of no use any more, either; whether it was a chat still is.
        self.prompt = self.rendered = self.chat = None
        self.messages = None if self.messages is None else []
        self.size = self._request_size = sizes.GENERATION + sizes.of(self.api)

    def cancel(self) -> None:
        """Stop it; its task then ends it as cancelled."""
        self.cancelled = True
        self.scope.cancel()

    def hand_back(self, error: RequestError) -> None:
        """Stop it because the server stops; its task then ends it with that error."""
        if not self.ended:
            self.error = error
            self.scope.cancel()

    def suspend(self) -> None:
        """Stop it without an end: what is in the journal is continued by the next server."""
        if not self.ended:
            self.suspended = True
            self.scope.cancel()

    @property
    def made(self) -> int:
        """Tokens that upstreams have made for it in this process, each once; never grows less."""
        told = 0 if self.final is None else self.final.tokens_predicted
        return self._made + max(self._predicted, told) - self._again

    @property
    def from_store(self) -> bool:
        """Whether what was kept already answered it, and no upstream was used."""
        return self._told is not None and not self.times.dispatched

    @property
    def outcome(self) -> Outcome:
        """What its readers get at the end, as far as it is known."""
        predicted = max(self._predicted, self._shown)
        return self._told or outcome_of(self.final, self._before, predicted)

    def phases(self) -> dict[str, float]:
        """Milliseconds by phase until now."""
        if self._told is not None and self._told.timings is not None:
            return self._told.timings
        timings = self.final.timings if self.final else None
        return self.times.phases(trio.current_time(), 0.0 if timings is None else timings.prompt_ms)

    @property
    def concluded(self) -> bool:
        """Whether `conclude` was called, or it was adopted."""
        return self._told is not None

    def conceal(self) -> None:
        """Let the streams send nothing more, since somebody else may have it by now."""
        self.visible = 0

    def conclude(self, outcome: Outcome) -> None:
        """It is known how it ended, from somewhere else than the upstream."""
        self._told = outcome


class _Packed(Generation):
    """A generation while its log is packed.

    A class of its own, since one with a `__getattr__` has slower attributes, all of them.
    """

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Of its log: called only for what is not there."""
            if name not in _LOG or self.packed is None:
                raise AttributeError(f"a generation has no {name}")
            self._unpack()
            return getattr(self, name)
