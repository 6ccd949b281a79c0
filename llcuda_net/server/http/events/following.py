"""One answer that a stream of events follows: its blocks, from where its reader is to its end.

It is no reader of the generation, which goes on and ends as if nobody looked: who asked for it
decides that. Only one that is over, whose log was dropped from memory, has a reader until it is
here again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from time import thread_time
from typing import TYPE_CHECKING, Any

import trio

from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.delivery.deliver import find
from llcuda_net.server.http.errors import of_request_error
from llcuda_net.server.http.events.asked import AskedAnswer
from llcuda_net.server.http.events.entries import end_of
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.markdown import RENDERERS
from llcuda_net.server.http.responses.earlier import generation_id

if TYPE_CHECKING:
    from llcuda_net.server.http.markdown.blocks import Blocks, Step

#: Characters of a log that are taken at once.
_AT_ONCE = 64 << 10
#: Characters to be rendered from which on it is done in a thread: about a millisecond of work.
_IN_THREAD = 2 << 10
#: Pieces of a log that are joined at once.
_PIECES = 1024
#: How long an open block is left alone, as a multiple of what its last rendering took.
_PAUSES = 10


class FollowedAnswer:
    """Tells what has changed of an answer, when it is asked to.

    Args:
        wake: called when a log that was dropped is here again.

    Attributes:
        id: as its reader calls it.
        generation: while there is something to tell of it.
        over: all was told.
        behind: there is more to tell at once.
        rendered: when what was new of it was last rendered, on trio's clock.
    """

    def __init__(self, asked: AskedAnswer, exchange: Exchange, wake: Callable[[], None]) -> None:
        self.id = asked.id
        self.generation: Generation | None = None
        self.over = False
        self.behind = True
        self.rendered = -math.inf
        self._exchange = exchange
        self._wake = wake
        self._asked = asked
        self._blocks: Blocks
        self._at = 0  # pieces that the blocks have
        self._same = 0  # the first pieces, which are as the reader had them
        self._told: dict[str, Any] = {}  # what the first event of it says besides
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<FollowedAnswer {self.id} {self._at}{' over' if self.over else ''}>"

    async def find(self) -> dict[str, Any] | None:
        """Find it; what there is to tell where that fails."""
        try:
            generation = await find(self._exchange, generation_id(self.id))
        except RequestError as error:
            return self._failed(error)
        self.generation = generation
        generation.watch(True)
        epoch = self._asked.epoch
        same = generation.count if epoch is None else generation.same_since(epoch)
        self._same = min(same, generation.visible) if self._asked.have else 0
        self._begin(self._asked.have)
        return None

    def pump(self) -> None:
        """See Reader."""
        self._wake()

    def leave(self) -> None:
        """Nothing more is told."""
        generation, self.generation, self.over = self.generation, None, True
        if generation is None:
            return
        generation.watch(False)
        if self in generation.readers:
            generation.readers.remove(self)
            self._exchange.host.left(generation)

    @property
    def running(self) -> bool:
        """Whether there will be more to tell."""
        return self.generation is not None and not self.generation.ended

    @property
    def moved(self) -> bool:
        """Whether there may be something to tell."""
        generation = self.generation
        if generation is None:
            return False
        told_all = self._at >= generation.visible and not (self._blocks.stale or self._told)
        return generation.ended or not told_all

    async def changes(self, *, render: bool) -> tuple[dict[str, Any] | None, float]:
        """What has changed since the last time, and the CPU seconds of rendering that it took.

        Args:
            render: else only what costs next to nothing, unless the reader lacks much.

        Returns:
            None: nothing has, or its log has to be read again first.
        """
        generation = self.generation
        assert generation is not None
        if generation.lost is not None:
            return self._failed(generation.lost), 0.0
        if generation.shelved is not None and self._at < generation.visible:
            self._recall(generation)
            return None, 0.0
        size = self._take(generation)
        self.behind = self._at < generation.visible
        ended = generation.ended and not self.behind
        render = render and trio.current_time() >= self._not_before
        lacking = self._blocks.count < self._blocks.have
        if not (render or ended or self.behind or lacking):
            step, took = self._blocks.step(render=False), 0.0
        else:
            work = partial(self._step, ended=ended)
            if size + self._blocks.weight > _IN_THREAD:
                step, took = await trio.to_thread.run_sync(work, limiter=RENDERERS)
            else:
                step, took = work()
            self.rendered = trio.current_time()
            self._not_before = self.rendered + _PAUSES * took
        if self._at >= self._same and self._blocks.count < self._blocks.have:
            self._told["reset"] = True
            self._begin(0)
            return None, took
        told = self._told | as_json(step)
        if ended:
            told["ended"] = end_of(generation, with_owner=False)
            self.leave()
        self._told = {}
        return told or None, took

    def _begin(self, have: int) -> None:
        from llcuda_net.server.http.markdown.blocks import Blocks  # few ask for it

        assert self.generation is not None
        self._told["epoch"] = self.generation.epoch
        self._blocks = Blocks(have)
        self._at = 0
        self.behind = True

    def _take(self, generation: Generation) -> int:
        """Give the blocks what they do not have of the log, within bounds; its characters."""
        behind = generation.visible
        if self._at < self._same:
            behind = min(behind, self._same)
        size = 0
        for first, end, channel in generation.parts(self._at, behind):
            for at in range(first, end, _PIECES):
                text = "".join(generation.pieces[at : min(end, at + _PIECES)])
                self._blocks.add(channel, text)
                self._at = min(end, at + _PIECES)
                size += len(text)
                if size >= _AT_ONCE:
                    return size
        return size

    def _step(self, *, ended: bool) -> tuple[Step, float]:
        begun = thread_time()  # other work of the machine is not its own
        blocks = self._blocks
        if ended:
            step = blocks.end()
        elif self.behind:
            step = blocks.final()
        else:
            step = blocks.step()
        return step, thread_time() - begun

    def _recall(self, generation: Generation) -> None:
        # It is over, so nothing depends on who reads it.
        if self not in generation.readers:
            generation.join(self)
        self.behind = False  # until it is here
        self._exchange.host.recall(generation)

    def _failed(self, error: RequestError) -> dict[str, Any]:
        self.leave()
        failure: dict[str, Any] = of_request_error(error).document()["error"]
        return {"error": failure}


def as_json(step: Step) -> dict[str, Any]:
    """A step in the events."""
    found: dict[str, Any] = {}
    if step.final:
        found["blocks"] = step.final
    if step.open is not None or step.closed:
        found["open"] = step.open
    return found
