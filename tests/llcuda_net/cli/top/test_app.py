"""The live screen of `llcuda top`, driven by textual's pilot; and the thread that feeds it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from llcuda_net.cli.common import Exit
from llcuda_net.cli.top import feed
from llcuda_net.cli.top.app import WIDE, Top
from llcuda_net.cli.top.feed import Feed, Listener
from llcuda_net.errors import ConnectError, LlcudaError, ShuttingDown, Unauthorized
from llcuda_net.sync import Client
from tests.llcuda_net.cli.top.test_view import changed
from tests.support.reports import FULL


class Told:
    """A source that tells what the test says."""

    listener: Listener
    stopped = False

    def start(self, listener: Listener) -> None:
        self.listener = listener

    def stop(self) -> None:
        self.stopped = True


class Screen:
    """The app under test, and its clock."""

    def __init__(self, **options: Any) -> None:
        self.source = Told()
        self.time = 1000.0
        self.app = Top("box:9000", self.source, now=lambda: self.time, **options)
        self.pilot: Pilot[int]

    async def tell(self, report: dict[str, Any]) -> None:
        self.source.listener.report(report)
        await self.pilot.pause()

    def shown(self, name: str) -> str:
        """What a section shows; nothing where it is hidden."""
        widget = self.app.query_one(f"#{name}", Static)
        return str(widget.content) if widget.display else ""


def drive(
    body: Callable[[Screen], Awaitable[None]], size: tuple[int, int] = (80, 24), **options: Any
) -> Screen:
    """Run a test of the screen to its end."""
    screen = Screen(**options)

    async def main() -> None:
        async with screen.app.run_test(size=size) as screen.pilot:
            await screen.pilot.pause()
            await body(screen)

    asyncio.run(main())
    assert screen.source.stopped
    return screen


def test_a_report_fills_the_sections() -> None:
    async def body(screen: Screen) -> None:
        assert "waiting for the first report" in screen.shown("state")
        await screen.tell(FULL)
        assert "llcuda-server 1.2.3  box:9000" in screen.shown("title")
        assert "█████▒▓░ 7/8" in screen.shown("upstreams")
        assert "connection refused" in screen.shown("upstreams")
        assert "batch" in screen.shown("users")
        assert "all 12 slots are in use" in screen.shown("queue")
        assert "(default)" in screen.shown("models")
        assert "unstored 1" in screen.shown("store")
        assert not screen.shown("changes")
        assert screen.shown("state").startswith("live")
        assert "q quits" in screen.shown("state")
        await screen.tell({})
        assert not screen.shown("upstreams")

    drive(body)


def test_changes_are_listed_and_told_while_they_are_new() -> None:
    async def body(screen: Screen) -> None:
        await screen.tell(FULL)
        screen.time += 1
        await screen.tell(changed(state="down", reason="it is gone"))
        assert "gpu-a is down: it is gone" in screen.shown("changes")
        assert "gpu-a is down" in screen.shown("state")
        screen.time += 60
        await screen.tell(changed(state="down", reason="it is gone"))
        assert "gpu-a is down" not in screen.shown("state")
        assert "gpu-a is down" in screen.shown("changes")

    drive(body)


def test_a_lost_connection_is_told_until_it_is_back() -> None:
    async def body(screen: Screen) -> None:
        await screen.tell(FULL)
        screen.source.listener.lost("the server has gone")
        await screen.pilot.pause()
        screen.time += 5
        screen.source.listener.lost("nobody is there")
        await screen.pilot.pause()
        assert "no connection for 5.0 s: nobody is there" in screen.shown("state")
        assert "gpu-a" in screen.shown("upstreams")  # what was told last stays
        assert screen.shown("changes").count("no connection") == 1
        await screen.tell(FULL)
        assert screen.shown("state").startswith("live")
        assert "the connection is back" in screen.shown("changes")

    drive(body)


def test_a_pause_holds_the_screen_still() -> None:
    async def body(screen: Screen) -> None:
        await screen.tell(FULL)
        await screen.pilot.press("p")
        await screen.tell({**FULL, "connections": 77})
        assert "clients 14" in screen.shown("title")
        assert screen.shown("state").startswith("paused")
        await screen.pilot.press("p")
        await screen.tell({**FULL, "connections": 77})
        assert "clients 77" in screen.shown("title")

    drive(body)


@pytest.mark.parametrize(("key", "code"), [("q", Exit.OK), ("ctrl+c", Exit.INTERRUPTED)])
def test_keys_that_end_it(key: str, code: Exit) -> None:
    async def body(screen: Screen) -> None:
        await screen.pilot.press(key)

    assert drive(body).app.return_value == code


def test_a_server_that_does_not_want_us_ends_it() -> None:
    error = Unauthorized("the token is missing or wrong")

    async def body(screen: Screen) -> None:
        screen.source.listener.failed(error)
        await screen.pilot.pause()

    screen = drive(body)
    assert screen.app.return_value == Exit.REFUSED
    assert screen.app.failure is error


@pytest.mark.parametrize("wide", [False, True])
def test_sections_stand_side_by_side_where_there_is_room(wide: bool) -> None:
    async def body(screen: Screen) -> None:
        await screen.tell(FULL)
        await screen.pilot.pause()
        users, models = (screen.app.query_one(f"#{name}").region for name in ("users", "models"))
        assert (users.y == models.y) == wide
        assert (users.right <= models.x) == wide
        body_ = screen.app.query_one("#body").region
        assert models.right <= body_.right
        assert screen.app.query_one("#state").region.y == 39

    drive(body, size=(WIDE if wide else WIDE - 1, 40))


@pytest.mark.parametrize("coloured", [False, True])
def test_colours_only_where_they_are_wanted(coloured: bool) -> None:
    async def body(screen: Screen) -> None:
        await screen.tell(FULL)
        text = cast(Any, screen.app.query_one("#upstreams", Static).content)
        assert bool([span for span in text.spans if str(span.style)]) == coloured

    drive(body, coloured=coloured)


# -- the thread that feeds it -------------------------------------------------------------------


class FakeClient:
    """Gives what it is told to, in turn; then the test's end."""

    def __init__(self, *answers: dict[str, Any] | LlcudaError) -> None:
        self.answers = list(answers)
        self.closed = False

    def status(self) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, LlcudaError):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


class Heard:
    """Notes what it is told, and stops the feed after so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.feed: Feed
        self.told: list[Any] = []

    def report(self, report: dict[str, Any]) -> None:
        self._note(report)

    def lost(self, why: str) -> None:
        self._note(why)

    def failed(self, error: LlcudaError) -> None:
        self._note(error)

    def _note(self, what: Any) -> None:
        self.told.append(what)
        if len(self.told) >= self.most:
            self.feed.stop()


def heard(most: int, client: FakeClient, *dialled: FakeClient | LlcudaError) -> list[Any]:
    """What a feed tells in all, in this thread."""
    left = list(dialled)

    def dial() -> Client:
        found = left.pop(0)
        if isinstance(found, LlcudaError):
            raise found
        return cast(Client, found)

    listener = Heard(most)
    listener.feed = Feed(dial, cast(Client, client), 0.0)
    listener.feed.run(listener)
    return listener.told


def test_a_feed_connects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_RETRY", 0.0)
    first = FakeClient({"a": 1}, ConnectError("lost"))
    second = FakeClient({"b": 2}, ShuttingDown("it stops", retry=True))
    third = FakeClient({"c": 3})
    told = heard(6, first, ConnectError("refused"), second, third)
    assert told == [{"a": 1}, "lost", "refused", {"b": 2}, "it stops", {"c": 3}]
    assert first.closed
    assert second.closed
    assert third.closed


def test_a_feed_ends_when_the_server_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_RETRY", 0.0)
    refusal = Unauthorized("no")
    assert heard(9, FakeClient(ConnectError("lost")), refusal) == ["lost", refusal]


def test_a_feed_that_is_stopped_says_nothing_of_it() -> None:
    class Closing(FakeClient):
        def status(self) -> dict[str, Any]:
            began.set()
            assert closing.wait(300)
            raise ConnectError("the client is closed")

        def close(self) -> None:
            closing.set()

    began, closing = threading.Event(), threading.Event()
    listener = Heard(9)
    feed = listener.feed = Feed(lambda: cast(Client, FakeClient()), cast(Client, Closing()), 1.0)
    feed.start(listener)
    assert began.wait(300)
    feed.stop()
    assert feed._thread is not None
    feed._thread.join(300)
    assert not feed._thread.is_alive()
    assert listener.told == []
