"""One upstream under watch: believed when it makes tokens, and asked anew when it was gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog
import trio

from llcuda_net.errors import RequestError, UpstreamBusy, UpstreamStalled, request_error
from llcuda_net.upstream.health_check import (
    INTERVAL,
    RELEASE_SECONDS,
    SILENCE,
    TIMEOUT,
)
from llcuda_net.upstream.prompts.prefix_cache import BLOCK, chain_of
from llcuda_net.upstream.slots.lease import Lease
from llcuda_net.upstream.slots.table import Use
from llcuda_protocol import ErrorCode
from tests.support.upstream.scripted_upstream import Talker, broken, gone
from tests.support.upstream.watched import lease, until_up, uses, watched

# -- slots ------------------------------------------------------------------------------------


async def test_it_learns_how_many_slots_there_are(autojump_clock: object) -> None:
    async with watched(Talker(slots=3)) as one:
        assert (one.slots, one.free, one.model) == (3, 3, "fake")
    async with watched(Talker(slots=3), slots=2) as one:
        assert one.slots == 2
    async with watched(Talker(slots=3), slots=8) as one:
        assert one.slots == 3


async def test_an_answer_that_was_given_frees_its_slot_at_once(autojump_clock: object) -> None:
    async with watched(Talker(slots=1)) as one:
        held = lease(one, "x" * BLOCK)
        assert held.params == {"id_slot": 0}
        assert (one.busy, one.leases) == (1, {held})
        held.sent()
        held.done("x" * BLOCK, None)
        held.release()
        assert (uses(one), one.leases) == (["free"], set())
        assert one.table.best(chain_of("x" * BLOCK + "y")) == (held.slot, 1)
        held.slot.turn(Use.BUSY, "bob")
        held.release()  # a second time is nothing, whoever has it now
        assert uses(one) == ["busy"]


async def test_what_was_broken_off_is_free_when_slots_says_so(autojump_clock: object) -> None:
    upstream = Talker(slots=1)
    news = []
    async with watched(upstream, on_change=lambda: news.append(trio.current_time())) as one:
        held = lease(one)
        held.sent()
        held.slot.chain = chain_of("x" * BLOCK)
        upstream.working.add(0)
        held.release()
        assert (uses(one), one.releasing, held.slot.chain) == (["releasing"], 1, ())
        await trio.sleep(30)
        assert uses(one) == ["releasing"]
        upstream.finish()
        asked = trio.current_time()
        news.clear()
        await trio.sleep(1)
        assert uses(one) == ["free"]
        assert news
        assert news[-1] - asked <= 0.3


async def test_what_ends_at_once_is_seen_at_once(autojump_clock: object) -> None:
    async with watched(Talker(slots=1)) as one:
        held = lease(one)
        held.sent()
        await trio.sleep(10 * INTERVAL + 0.5)
        held.release()
        await trio.sleep(0.01)
        assert uses(one) == ["free"]


async def test_what_was_never_sent_is_free_at_once(autojump_clock: object) -> None:
    async with watched(Talker(slots=1)) as one:
        lease(one).release()
        assert uses(one) == ["free"]


async def test_without_slots_what_was_broken_off_is_free_after_a_while(
    autojump_clock: object,
) -> None:
    upstream = Talker(slots=1)
    upstream.has_slots = False
    async with watched(upstream) as one:
        held = lease(one)
        held.sent()
        held.release()
        await trio.sleep(RELEASE_SECONDS * 0.9)
        assert uses(one) == ["releasing"]
        await trio.sleep(0.5)
        assert uses(one) == ["free"]


async def test_others_work_is_seen_and_its_end(autojump_clock: object) -> None:
    upstream = Talker(slots=3)
    async with watched(upstream) as one:
        held = lease(one)
        upstream.working |= {held.slot.number, 2}
        await trio.sleep(2 * INTERVAL)
        assert (one.busy, one.foreign, one.free) == (1, 1, 1)
        assert held.slot.number != 2
        upstream.working.discard(2)
        await trio.sleep(2 * INTERVAL)
        assert (one.busy, one.foreign, one.free) == (1, 0, 2)


async def test_it_may_come_back_without_slots_or_with_them(autojump_clock: object) -> None:
    upstream = Talker(slots=2)
    async with watched(upstream) as one:
        held = lease(one)
        upstream.working |= {held.slot.number, 1}
        await trio.sleep(2 * INTERVAL)
        assert one.foreign == 1
        held.release()
        upstream.has_slots = False
        upstream.die()
        one.record_failure(gone())
        upstream.back()
        await until_up(one)
        await trio.sleep(2 * INTERVAL)
        assert uses(one) == ["free", "free"]
        upstream.die()
        one.record_failure(gone())
        upstream.has_slots = True
        upstream.back()
        await until_up(one)
        held = lease(one)
        upstream.working |= {0, 1}
        await trio.sleep(2 * INTERVAL)
        assert one.foreign == 1


async def test_it_comes_back_with_fewer_slots(autojump_clock: object) -> None:
    upstream = Talker(slots=3)
    async with watched(upstream) as one:
        held = [lease(one) for _ in range(3)]
        upstream.die()
        one.record_failure(gone())
        for each in held:
            each.sent()
            each.release()
        upstream.back(slots=1)
        await until_up(one)
        await trio.sleep(2 * INTERVAL)
        assert uses(one) == ["free"]


# -- how it does ------------------------------------------------------------------------------


async def test_an_upstream_that_went_is_noticed_without_work(autojump_clock: object) -> None:
    upstream = Talker()
    async with watched(upstream) as one:
        upstream.die(gone("connection refused"))
        await trio.sleep(2 * INTERVAL)
        assert (one.state, one.reason, one.up) == ("down", "connection refused", False)
        upstream.back()
        await until_up(one)
        assert (one.reason, upstream.probes) == ("", 1)


async def test_one_that_is_back_must_make_a_token(autojump_clock: object) -> None:
    """It says that it is well: that is not believed."""
    upstream = Talker()
    async with watched(upstream) as one:
        one.record_failure(gone())
        assert (one.state, one.failures) == ("down", 1)
        upstream.mute = True
        for _ in range(100):
            await trio.sleep(1)
            assert one.state in ("down", "probing")
        assert upstream.probes >= 2
        assert "no token within 20 s" in one.reason
        upstream.mute = False
        await until_up(one)
        assert one.up


async def test_it_must_make_one_also_where_all_its_slots_were_broken_off(
    autojump_clock: object,
) -> None:
    upstream = Talker(slots=1)
    async with watched(upstream) as one:
        held = lease(one)
        held.sent()
        one.record_failure(gone())
        held.release()
        upstream.mute = upstream.lingers = True
        for _ in range(60):
            await trio.sleep(1)
            assert one.state in ("down", "probing")
        assert uses(one) == ["releasing"]  # the first probe was broken off, and works on there
        upstream.mute = upstream.lingers = False
        upstream.finish()
        await until_up(one)
        assert upstream.probes >= 2
        assert upstream.collisions == 0


@pytest.mark.parametrize("code", [ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_STALLED])
async def test_one_failure_without_doubt_is_enough(autojump_clock: object, code: str) -> None:
    async with watched(Talker()) as one:
        one.record_failure(request_error(code, "no"))
        assert one.state == "down"


async def test_errors_are_believed_after_some_in_a_row(autojump_clock: object) -> None:
    upstream = Talker(slots=1)
    async with watched(upstream) as one:
        for _ in range(2):
            one.record_failure(broken())
            one.record_failure(broken())
            assert one.state == "up"
            held = lease(one)
            held.sent()
            held.done("", None)  # an answer between them
            held.release()
        one.record_failure(broken())
        one.record_failure(broken())
        one.record_failure(broken("out of memory"))
        assert (one.state, one.reason, one.failures) == ("down", "answers with errors", 7)
        await until_up(one)


async def test_an_answer_that_goes_on_shows_that_it_is_well(autojump_clock: object) -> None:
    async with watched(Talker()) as one:
        held = lease(one)
        one.record_failure(gone())
        assert one.state == "down"
        held.done("", None)
        assert one.state == "up"


class Reader:
    """Whoever uses a lease: reads until it is cut.

    Attributes:
        now: returns when a token came last.
        cut: when it was cut, on trio's clock.
        error: with which.
    """

    def __init__(self, lease: Lease, nursery: trio.Nursery) -> None:
        self.now: Callable[[], float] = lambda: 0.0
        self.made, self.first_token, self.times = 0, None, self
        self.cut: float | None = None
        self.error: RequestError | None = None
        nursery.start_soon(self._run, lease)

    @property
    def progress(self) -> float:
        return self.now()

    async def _run(self, lease: Lease) -> None:
        try:
            with lease.use(self):
                await trio.sleep_forever()
        except UpstreamStalled as error:
            self.cut, self.error = trio.current_time(), error


async def test_one_that_says_nothing_at_all_is_given_up_with_its_streams(
    autojump_clock: object,
) -> None:
    upstream = Talker(slots=2)
    async with watched(upstream) as one, trio.open_nursery() as nursery:
        still, going = Reader(lease(one), nursery), Reader(lease(one), nursery)
        going.now = trio.current_time
        await trio.sleep(0.01)
        upstream.silent = True
        start = trio.current_time()
        await trio.sleep(60)
        assert still.cut is not None
        assert SILENCE <= still.cut - start <= SILENCE + TIMEOUT + INTERVAL + 1
        assert still.error is not None
        assert "nothing for" in still.error.message
        # A stream whose tokens come is not cut, and when they come no more it is.
        assert going.cut is None
        last = trio.current_time()
        going.now = lambda: last
        await trio.sleep(60)
        assert going.cut is not None
        assert one.state in ("down", "probing")


async def test_a_hiccup_cuts_nothing(autojump_clock: object) -> None:
    upstream = Talker()
    async with watched(upstream) as one, trio.open_nursery() as nursery:
        reader = Reader(lease(one), nursery)
        for _ in range(5):
            upstream.silent = True
            await trio.sleep(TIMEOUT)
            upstream.silent = False
            await trio.sleep(2 * INTERVAL + TIMEOUT)
        assert reader.cut is None
        assert one.state == "up"
        nursery.cancel_scope.cancel()


async def test_a_stream_that_stands_still_ends_with_its_upstream(autojump_clock: object) -> None:
    """As behind a cable that was pulled: nobody says that the stream is over."""
    upstream = Talker()
    async with watched(upstream) as one, trio.open_nursery() as nursery:
        held = lease(one)
        held.sent()
        reader = Reader(held, nursery)
        upstream.away = gone("no route to host")
        await trio.sleep(SILENCE + 3 * INTERVAL + 15)
        assert reader.cut is not None
        assert one.state in ("down", "probing")


async def test_a_bug_in_the_watch_ends_nothing(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = Talker()

    async def bug() -> None:
        raise ZeroDivisionError

    # Captured: to format a traceback with its local variables takes long.
    with structlog.testing.capture_logs() as logs:
        async with watched(upstream) as one:
            with monkeypatch.context() as patch:
                patch.setattr(upstream, "check", bug)
                await trio.sleep(5)
                assert (one.state, one.reason) == ("down", "could not be watched")
            await until_up(one)
    assert "watch_failed" in {one["event"] for one in logs}


async def test_one_that_is_expected_back_is_probed_without_a_pause(
    autojump_clock: object,
) -> None:
    upstream = Talker()
    async with watched(upstream) as one:
        upstream.die()
        await trio.sleep(120)
        upstream.back()
        one.expect_back()
        await trio.sleep(0.01)
        assert one.state == "up"


# -- busy -------------------------------------------------------------------------------------


class Asked(Talker):
    """Notes when it was asked whether it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.checks: list[float] = []

    async def check(self) -> None:
        self.checks.append(trio.current_time())
        await super().check()


def _busy(seconds: float) -> RequestError:
    return UpstreamBusy("the upstream takes no more", retry=True, retry_after=seconds)


async def test_a_check_that_is_refused_for_now_is_no_failure(autojump_clock: object) -> None:
    upstream, news = Asked(), []
    async with watched(upstream, on_change=lambda: news.append(trio.current_time())) as one:
        upstream.away = _busy(20.0)
        await trio.sleep(2)
        assert (one.state, one.resting, one.failures) == ("up", True, 0)
        assert "takes no more for now" in one.reason
        refused = upstream.checks[-1]
        upstream.away = None
        one.attention.set()
        await trio.sleep(30)
        # It is left in peace for as long as it asked for, and what waits is woken by then.
        assert upstream.checks[upstream.checks.index(refused) + 1] == refused + 20.0
        assert refused + 20.0 in news
        assert not one.resting


async def test_a_probe_that_is_refused_for_now_is_repeated_when_it_may_be(
    autojump_clock: object,
) -> None:
    upstream = Asked()
    async with watched(upstream) as one:
        one.mark_down("for a test")
        upstream.away = _busy(20.0)
        await trio.sleep(2)
        refused = upstream.checks[-1]
        upstream.away = None
        assert one.state == "down"
        await trio.sleep(30)
        assert upstream.checks[upstream.checks.index(refused) + 1] >= refused + 20.0
        assert one.state == "up"
