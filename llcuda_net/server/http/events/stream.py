"""One stream of events for a page: what runs, what is over, and answers in blocks.

All that has changed since the last event is in the next one, and there are at most ten a second.
Nothing here is called per token: while something runs, the stream looks at it. A reader that takes
nothing costs what its write buffer holds: nothing is made for it until there is room.

What is dear is to render Markdown. All answers of a stream share a small part of a core for that;
they are looked at in turns, so that each gets its share.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import trio

from llcuda_net.errors import RequestError, ShuttingDown
from llcuda_net.server.changes import ALL, CHANGED, CREATED, DELETED, MOST, Follower
from llcuda_net.server.http.errors import of_request_error
from llcuda_net.server.http.events.asked import Asked
from llcuda_net.server.http.events.following import FollowedAnswer
from llcuda_net.server.http.events.running import RunningList
from llcuda_net.server.http.exchange import Exchange

#: Seconds between two events, at least.
TICK = 0.1
#: Seconds of silence after which a comment is due.
SILENCE = 5.0
#: Seconds between two reports of the server.
_REPORT_EVERY = 1.0
#: Characters of HTML in an event beyond which the next answer waits for the next event.
_ENOUGH = 128 << 10
#: Of each second, the CPU time that may be spent on rendering, and the most that is saved of it.
_SHARE, _MOST_SAVED = 0.02, 0.1
#: Where that is not enough, all are rendered less often, but each once in so many seconds: what is
#: new must be rendered once, and it only becomes more. For this there is a larger share.
_LATEST, _LARGEST_SHARE = 1.0, 0.15
#: Bytes that a stream takes in memory, and each answer of it; about.
SIZE, ANSWER_SIZE = 512 << 10, 64 << 10


class PageStream:
    """Sends events until its reader goes away or the server stops.

    Args:
        asked: what is to be in them.
    """

    def __init__(self, exchange: Exchange, asked: Asked) -> None:
        self._exchange = exchange
        self._asked = asked
        self._woken = trio.Event()
        self._stop: RequestError | None = None
        owner = None if asked.everybody else exchange.request.user.name
        self._running = RunningList(exchange.host, owner, self._wake)
        self._answers = deque(FollowedAnswer(one, exchange, self._wake) for one in asked.answers)
        self._saved = self._largest_saved = _MOST_SAVED  # seconds of rendering
        self._counted = trio.current_time()
        self._reported = -_REPORT_EVERY
        self._first_report = True
        self._conversations: dict[str, str] = {}  # that have changed, and how

    def __repr__(self) -> str:
        return f"<PageStream {self._running!r} {len(self._answers)} answers>"

    async def run(self) -> None:
        """Serve it to its end; when cancelled, since the client is gone, it leaves."""
        exchange, host = self._exchange, self._exchange.host
        user = exchange.request.user
        exchange.on_room, exchange.on_stop = self._wake, self._hand_back
        try:
            with (
                host.holding(user, SIZE + ANSWER_SIZE * len(self._answers)),
                host.runs.following(None if self._asked.everybody else user.name, self._running),
                host.changes.following(user.name) as conversations,
            ):
                exchange.begin_stream()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._follow, conversations)
                    await self._serve()
                    nursery.cancel_scope.cancel()
        finally:
            exchange.on_room = exchange.on_stop = None
            for answer in self._answers:
                answer.leave()

    def _wake(self) -> None:
        self._woken.set()

    def _hand_back(self, error: RequestError) -> None:
        """The server stops, or the reader's session is over."""
        self._stop = error
        if not isinstance(error, ShuttingDown):
            self._end(error)  # nothing more is for this reader
        self._wake()

    def _end(self, error: RequestError) -> None:
        if not self._exchange.finished:
            self._write({"error": of_request_error(error).document()["error"]})
            self._exchange.end_stream()
            self._exchange.flush()

    async def _follow(self, follower: Follower) -> None:
        """Gather what changes of conversations."""
        while True:
            for id_, kind in (await follower.wait()).items():
                is_new = self._conversations.get(id_) == CREATED and kind != DELETED
                self._conversations[id_] = CREATED if is_new else kind
            if len(self._conversations) > MOST or ALL in self._conversations:
                self._conversations = {ALL: CHANGED}
            self._wake()

    async def _serve(self) -> None:
        spoke = trio.current_time()
        while not self._exchange.finished:
            self._woken = trio.Event()
            stop, full = self._stop, self._exchange.buffer.full
            begun = trio.current_time()
            if full and stop is None:
                self._exchange.buffer.wait_for_room()
                await self._woken.wait()
                continue
            event = {} if full else await self._event()
            if event and not self._exchange.finished:
                self._write(event)
                spoke = begun
            elif begun - spoke >= SILENCE:
                self._exchange.write(b": \n")
                spoke = begun
            if stop is not None:  # with what has changed until then
                self._end(stop)
                return
            self._exchange.flush()
            await self._pause(begun, spoke)

    async def _pause(self, begun: float, spoke: float) -> None:
        """Until the next event may be due."""
        if any(answer.behind for answer in self._answers):
            await trio.lowlevel.checkpoint()
            return
        await trio.sleep_until(begun + TICK)
        if self._running or any(answer.running or answer.moved for answer in self._answers):
            return
        until = spoke + SILENCE
        if self._asked.status:
            until = min(until, self._reported + _REPORT_EVERY)
        with trio.move_on_at(until):
            await self._woken.wait()

    async def _event(self) -> dict[str, Any]:
        """All that has changed."""
        answers = await self._changes()
        followed = [one.generation for one in self._answers if one.generation is not None]
        event = self._running.changes(followed)
        if self._conversations:
            event["conversations"], self._conversations = self._conversations, {}
        if answers:
            event["answers"] = answers
        now = trio.current_time()
        if self._asked.status and now - self._reported >= _REPORT_EVERY:
            self._reported = now
            event["status"] = await self._exchange.host.status(
                self._exchange.request.user, history=self._first_report
            )
            self._first_report = False
        return event

    async def _changes(self) -> dict[str, Any]:
        """What has changed of the answers that are followed."""
        now = trio.current_time()
        since = now - self._counted
        self._saved = min(_MOST_SAVED, self._saved + since * _SHARE)
        self._largest_saved = min(_MOST_SAVED, self._largest_saved + since * _LARGEST_SHARE)
        self._counted = now
        told: dict[str, Any] = {}
        size = 0
        put_off: FollowedAnswer | None = None
        for _ in range(len(self._answers)):
            answer = self._answers[0]
            found = None
            if answer.generation is None:
                found = await answer.find()
            if answer.generation is not None and answer.moved:
                late = now - answer.rendered >= _LATEST
                render = self._saved > 0 or (late and self._largest_saved > 0)
                found, took = await answer.changes(render=render)
                self._saved = max(self._saved - took, -_MOST_SAVED)
                self._largest_saved -= took
                if not render and answer.moved and put_off is None:
                    put_off = answer
            if found is not None:
                told[answer.id] = found
                size += sum(len(block.get("html", "")) for block in found.get("blocks", ()))
            if answer.over:
                self._answers.popleft()
            else:
                self._answers.rotate(-1)
            if size > _ENOUGH:
                break
        while put_off is not None and self._answers[0] is not put_off:
            self._answers.rotate(-1)  # it is the first, the next time
        return told

    def _write(self, event: dict[str, Any]) -> None:
        self._exchange.write(b"data: %b\n\n" % msgspec.json.encode(event))
