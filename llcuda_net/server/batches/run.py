"""One batch, from its check to its files."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
import trio

from llcuda_net.config.users import User
from llcuda_net.errors import RequestError
from llcuda_net.server.batches import output
from llcuda_net.server.batches.ask import ask, was_asked
from llcuda_net.server.batches.lines import Checker, body_of
from llcuda_net.server.batches.owned import OwnedObjects
from llcuda_net.server.batches.places import Places
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Handler, HttpHost
from llcuda_net.server.http.files.quota import excess, quota_of
from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.batches import Batch, Line, Outcome
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.records import Level

log = structlog.get_logger(__name__)

#: Bytes of outcomes after which it is looked whether their owner may have more.
_WEIGHED = 1 << 20
#: Bytes of an input that are read and checked at once.
_AT_ONCE = 1 << 20
#: Lines whose places in the input are read at once.
_PAGE = 256
#: Times that a line is asked again after upstreams have failed at it. One for which there is no
#: room, or no upstream, is asked until there is.
_TRIES = 3
#: Most seconds between two attempts where there is no room.
_LONGEST_REST = 30.0
#: Seconds after which the store is asked again where it refused.
AGAIN = 5.0
#: Inputs that are checked at a time: it takes a processor, and some memory.
_CHECKS = trio.CapacityLimiter(1)
#: Runs a function in a thread.
InThread = Callable[[Callable[[], None]], Awaitable[None]]
_T = TypeVar("_T")


class Run:
    """Runs one batch.

    Args:
        host: answers its lines.
        batch: as it is now.
        life: of this server, by which it has the batch.
        handler: of its endpoint.
        places: shared by all.
        now: Unix time in nanoseconds.
        in_thread: runs what would hold up the event loop.
        lines: counts those that are over: completed, failed.

    Attributes:
        seq: its number.
        life: as given.
        left: its lines that are not over.
        dropped: another server goes on with it.
    """

    def __init__(
        self,
        host: HttpHost,
        batch: Batch,
        life: int,
        handler: Handler,
        places: Places,
        now: Callable[[], int],
        in_thread: InThread,
        lines: Counter[str],
    ) -> None:
        self.seq = batch.seq
        self.life = life
        self.left = 0
        self._in_thread = in_thread
        self._host = host
        self._objects = OwnedObjects(host.objects, batch.seq, life, self.drop)
        self.dropped = False
        self._all = trio.CancelScope()
        self._handler = handler
        self._places = places
        self._now = now
        self._working = trio.CancelScope()
        self._cancelled = False
        self._batch = batch
        self._user: User
        self._lines = lines
        self._next = 0  # the line from which on none was asked
        self._again: deque[Line] = deque()
        self._asked: set[int] = set()
        self._failures: dict[int, int] = {}  # of lines that are asked again
        self._rest_until = 0.0
        self._rests = 0  # in a row
        self._moved = trio.Event()
        self._unsaved: list[Outcome] = []
        self._saving = trio.Lock()
        self._unweighed = 0  # bytes of outcomes since the quota was looked at
        self._full: HttpError | None = None
        self._begun: list[int] = []  # files

    def __repr__(self) -> str:
        return f"<Run of batch {self.seq}, {len(self._asked)} lines asked>"

    @property
    def state(self) -> str:
        """Of the batch, as far as is known here."""
        return batches.CANCELLING if self._batch.open and self._cancelled else self._batch.state

    @property
    def asked(self) -> int:
        """Lines that are asked now."""
        return len(self._asked)

    def cancel(self) -> None:
        """Ask nothing more: the store says so."""
        self._cancelled = True
        self._working.cancel()

    def drop(self) -> None:
        """Ask nothing more, and write nothing: another server goes on."""
        self.dropped = True
        self._all.cancel()

    def _work(self) -> trio.CancelScope:
        """Around what `cancel` ends."""
        self._working = trio.CancelScope()
        if self._cancelled:
            self._working.cancel()
        return self._working

    async def run(self) -> None:
        """Go on from where it is to its end, unless it is dropped.

        Raises:
            RequestError: the store refuses.
        """
        with trio.CancelScope() as self._all:
            if not self.dropped:
                await self._run()

    async def _run(self) -> None:
        self._batch = await self._read()
        self._user = self._host.users.named(self._batch.owner)
        if self._batch.state == batches.VALIDATING:
            with self._work():
                async with _CHECKS:
                    await self._check()
            self._batch = await self._read()
        self.left = self._batch.total - self._batch.completed - self._batch.failed
        if self._batch.state == batches.IN_PROGRESS:
            await self._ask_all()
            self._batch = await self._read()
        if self._batch.open:
            await self._give_up()
            self._batch = await output.write_files(
                self._objects, self._batch, self._begun, self._now
            )
        log.info(
            "batch_over",
            batch=self._batch.id,
            state=self._batch.state,
            completed=self._batch.completed,
            failed=self._batch.failed,
        )

    async def _read(self) -> Batch:
        return await self._objects.read(lambda db: batches.get(db, self.seq))

    # -- the check ----------------------------------------------------------------------------

    async def _check(self) -> None:
        """Find the lines, and begin; or fail."""
        batch, objects = self._batch, self._objects
        await objects.write(lambda db: batches.forget_lines(db, self.seq))
        checker = Checker(batch.endpoint, self._host.settings.max_body)
        at = 0
        while not checker.over:
            start = at
            data = await objects.read(
                lambda db: files.part(db, batch.input, start, _AT_ONCE)  # noqa: B023
            )
            await self._in_thread(partial(checker.feed, data) if data else checker.close)
            found, checker.lines = checker.lines, []
            await objects.write(lambda db: batches.add_lines(db, self.seq, found))  # noqa: B023
            if not data:
                break
            at += len(data)
        if checker.errors:
            await objects.write(lambda db: batches.fail(db, self.seq, checker.errors, self._now()))
        else:
            await objects.write(lambda db: batches.begin(db, self.seq, checker.total, self._now()))

    # -- its lines ----------------------------------------------------------------------------

    async def _ask_all(self) -> None:
        """Ask every line that is not over, until all are, or there is no time, or it is ended."""
        self._next = 0
        self._again.clear()
        left = (self._batch.expires - self._now()) / 1e9
        with trio.move_on_after(max(0.0, left)) as window, self._work():
            async with trio.open_nursery() as nursery:
                while (line := await self._following()) is not None:
                    await self._places.take(self._batch.owner)
                    self._asked.add(line.number)
                    nursery.start_soon(self._one, line)
        if self._cancelled:
            return
        ends, errors = batches.COMPLETED, []
        if window.cancelled_caught:
            ends = batches.EXPIRED
        elif self._full is not None and await self._page(0, 1):
            ends, code, message = batches.FAILED, self._full.code, self._full.message
            errors = [{"code": code, "message": message, "param": None, "line": None}]
        await self._objects.write(
            lambda db: batches.finalize(db, self.seq, ends, self._now(), errors)
        )

    async def _give_up(self) -> None:
        """End what is still asked, whichever server has it, and all that was not yet asked."""
        batch = self._batch
        if batch.ends == batches.COMPLETED or not batch.total:
            return
        await self._host.generations.cancel_keys(batch.owner, f"{batch.id}:")
        await output.give_up(self._objects, batch, self._over)

    async def _following(self) -> Line | None:
        """The line to be asked next, when it is time; None: all are over."""
        while True:
            if self._host.draining:
                await trio.sleep_forever()  # the next server goes on
            await self._host.objects.member()
            await trio.sleep_until(self._rest_until)
            if self._full is not None:
                return None
            if not self._again:
                page = await self._page(self._next, _PAGE)
                if page:
                    self._again.extend(page)
                    self._next = page[-1].number + 1
            if self._again:
                return self._again.popleft()
            if not self._asked:
                return None
            self._moved = trio.Event()
            await self._moved.wait()

    async def _page(self, first: int, limit: int) -> list[Line]:
        """Lines that are not over, from this number on."""
        return await self._until_kept(
            lambda: self._objects.read(lambda db: batches.missing(db, self.seq, first, limit))
        )

    async def _one(self, line: Line) -> None:
        """Ask a line; it is over, or comes again."""
        try:
            again = await self._ask(line)
        finally:
            self._places.give_back()
        if again is not None:
            self._again.append(line)
            self._rests += 1
            rest = min(max(again, 0.1 * 2 ** min(self._rests, 10)), _LONGEST_REST)
            self._rest_until = max(self._rest_until, trio.current_time() + rest)
        else:
            self._rests = 0
        self._asked.discard(line.number)
        self._moved.set()

    async def _ask(self, line: Line) -> float | None:
        """Ask a line, and note what came of it; or the seconds after which to ask it again."""
        owner, held = self._batch.owner, line.size
        try:
            self._host.incoming.change(owner, 0, held)
        except RequestError as error:
            return error.retry_after or 1.0
        try:
            raw = await self._objects.read(
                lambda db: files.part(db, self._batch.input, line.start, line.size)
            )
            answer = await ask(
                self._host,
                self._handler,
                self._batch.endpoint,
                body_of(raw),
                self._user,
                self._headers(line),
            )
        except RequestError as error:  # of the store
            if error.retry:
                return error.retry_after or 1.0
            outcome = output.failure_of(self._batch, line, error.code, error.message)
        else:
            again = answer.retry_after
            if again is not None and await was_asked(self._host, answer, self._user):
                self._failures[line.number] = self._failures.get(line.number, 0) + 1
                if self._failures[line.number] > _TRIES:
                    again = None
            if again is not None:
                return again
            outcome = output.outcome_of(self._batch, line, answer)
        finally:
            self._host.incoming.change(owner, held, 0)
        await self._save(outcome)
        self._failures.pop(line.number, None)
        return None

    def _headers(self, line: Line) -> dict[str, str]:
        settings = self._host.settings
        headers = {
            "content-type": "application/json",
            "idempotency-key": self._key(line.number),
            "x-llcuda-priority": "low",
            # One that waits too long comes again, and has much of its time when it runs.
            "x-llcuda-deadline": f"{settings.timeout / 2:.3f}",
            "x-llcuda-on-disconnect": "continue",
        }
        if settings.durability == Level.MEMORY:  # else a restart would ask it again
            headers["x-llcuda-level"] = Level.DISK
        return headers

    def _key(self, number: int) -> str:
        return f"{self._batch.id}:{number}"

    async def _save(self, outcome: Outcome) -> None:
        """Note what came of a line; those that end together are noted together."""
        self._unsaved.append(outcome)
        async with self._saving:
            if not any(one is outcome for one in self._unsaved):
                return  # with another one
            some = list(self._unsaved)
            self._unweighed += sum(len(one.data) for one in some)
            quota = quota_of(self._user, self._host.settings.max_user_files)
            weigh = self._unweighed >= min(_WEIGHED, quota >> 6)

            def record(db: Database) -> HttpError | None:
                batches.record(db, self.seq, some)
                return excess(db, self._batch.owner, quota) if weigh else None

            full = await self._until_kept(lambda: self._objects.write(record))
            if weigh:
                self._unweighed, self._full = 0, self._full or full
            del self._unsaved[: len(some)]
        failed = sum(one.failed for one in some)
        self._over(len(some) - failed, failed)

    def _over(self, completed: int, failed: int) -> None:
        """Count lines that are over."""
        self.left -= completed + failed
        self._lines["completed"] += completed
        self._lines["failed"] += failed

    async def _until_kept(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do it, again and again while the store refuses: no line is asked meanwhile."""
        while True:
            try:
                return await work()
            except RequestError as error:
                log.warning("batch_waits", batch=self.seq, code=error.code, reason=error.message)
                await trio.sleep(AGAIN)
