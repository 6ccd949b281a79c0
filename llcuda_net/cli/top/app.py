"""The live screen of `llcuda top`."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from llcuda_net.cli.common import Exit
from llcuda_net.cli.top import sections
from llcuda_net.cli.top.feed import Listener
from llcuda_net.cli.top.grid import Line, Span, cut, length
from llcuda_net.cli.top.history import History
from llcuda_net.cli.top.view import View, read
from llcuda_net.errors import LlcudaError
from llcuda_net.util.terminal import one_line

#: From this width on, the lower sections stand side by side.
WIDE = 120
#: Requests of the queue, and changes, that are shown.
_MOST_WAITING = 20
_MOST_CHANGES = 10
#: Seconds for which the last line shows a change.
_NEW = 30.0
#: The terminal's own colours.
_STYLES = {
    "head": "bold cyan",
    "strong": "bold",
    "good": "green",
    "bad": "bold red",
    "warn": "yellow",
    "dim": "dim",
    "busy": "green",
    "foreign": "magenta",
}
_KEYS = "q quits   p pauses   ↑ ↓ scroll"


class Source(Protocol):
    """Where the reports come from; see `feed.Feed`."""

    def start(self, listener: Listener) -> None:
        """Begin to send reports to the listener."""

    def stop(self) -> None:
        """Send nothing more."""


class Top(App[int]):
    """The screen of one server.

    Args:
        server: its address, for the title.
        source: sends its reports.
        coloured: whether to use colours.
        now: the time, in seconds since 1970.

    Attributes:
        failure: why the server refused us; None if it did not.
    """

    CSS = """
    Screen { background: ansi_default; color: ansi_default; layout: vertical; }
    Static { background: ansi_default; color: ansi_default; height: auto; }
    #title, #state { padding: 0 1; }
    #title { margin-bottom: 1; }
    #body { scrollbar-size-vertical: 1; scrollbar-gutter: stable; padding: 0 0 0 1;
            background: ansi_default; scrollbar-background: ansi_default;
            scrollbar-color: ansi_bright_black; }
    #body Horizontal { height: auto; layout: vertical; background: ansi_default; }
    .section { margin-bottom: 1; }
    .-empty { display: none; }
    .-wide #body Horizontal { layout: horizontal; }
    .-wide #body Horizontal { margin-bottom: 1; }
    .-wide #body Horizontal .section { width: 1fr; margin-bottom: 0; }
    .-wide #body Horizontal .section.-first { margin-right: 3; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "leave", priority=True),
        Binding("ctrl+c", "interrupt", priority=True),
        Binding("p,space", "pause"),
        Binding("down,j", "down"),
        Binding("up,k", "up"),
        Binding("pagedown", "page_down"),
        Binding("pageup", "page_up"),
    ]
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012

    def __init__(
        self,
        server: str,
        source: Source,
        *,
        coloured: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(ansi_color=True)
        self.failure: LlcudaError | None = None
        self._server = server
        self._source = source
        self._coloured = coloured
        self._clock = now
        self._history = History()
        self._view: View | None = None
        self._lost: tuple[float, str] | None = None
        self._paused = False

    class Reported(Message):
        """A report has come."""

        def __init__(self, report: dict[str, Any]) -> None:
            super().__init__()
            self.report = report

    class Lost(Message):
        """The connection has gone."""

        def __init__(self, why: str) -> None:
            super().__init__()
            self.why = why

    class Failed(Message):
        """The server refused us."""

        def __init__(self, error: LlcudaError) -> None:
            super().__init__()
            self.error = error

    def compose(self) -> ComposeResult:
        """The sections, from top to bottom."""
        yield Static(id="title")
        with VerticalScroll(id="body"):
            yield Static(id="cluster", classes="section")
            yield Static(id="upstreams", classes="section")
            with Horizontal():
                yield Static(id="users", classes="section -first")
                yield Static(id="models", classes="section")
            yield Static(id="queue", classes="section")
            yield Static(id="changes", classes="section")
            yield Static(id="store", classes="section")
        yield Static(id="state")

    def on_mount(self) -> None:
        """Begin."""
        if not self.is_headless:  # the default would end it without restoring the terminal
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, self.exit, Exit.TERMINATED)
        self.set_interval(1.0, self._draw_state)
        self._draw()
        self._source.start(_Post(self))

    def on_unmount(self) -> None:
        """The end."""
        self._source.stop()

    def on_resize(self) -> None:
        """Lines are cut for the terminal's width."""
        self._draw()

    # -- what comes ---------------------------------------------------------------------------

    def on_top_reported(self, message: Reported) -> None:
        """A report has come."""
        now = self._clock()
        if self._lost is not None:
            self._history.note(now, "the connection is back", bad=False)
            self._lost = None
        view = self._history.add(read(message.report), now)
        if not self._paused or self._view is None:
            self._view = view
            self._draw()

    def on_top_lost(self, message: Lost) -> None:
        """The connection has gone; the last report stays on the screen."""
        if self._lost is None:
            self._lost = self._clock(), message.why
            self._history.note(self._clock(), f"no connection: {message.why}", bad=True)
        else:
            self._lost = self._lost[0], message.why
        self._draw()

    def on_top_failed(self, message: Failed) -> None:
        """End: the server refused us."""
        self.failure = message.error
        self.exit(Exit.REFUSED)

    # -- keys ---------------------------------------------------------------------------------

    def action_leave(self) -> None:
        """End."""
        self.exit(Exit.OK)

    def action_interrupt(self) -> None:
        """End, as Ctrl-C ends other commands."""
        self.exit(Exit.INTERRUPTED)

    def action_pause(self) -> None:
        """Hold the screen still, or go on."""
        self._paused = not self._paused
        self._draw_state()

    def action_down(self) -> None:
        """Scroll."""
        self._body.scroll_down(animate=False)

    def action_up(self) -> None:
        """Scroll."""
        self._body.scroll_up(animate=False)

    def action_page_down(self) -> None:
        """Scroll."""
        self._body.scroll_page_down(animate=False)

    def action_page_up(self) -> None:
        """Scroll."""
        self._body.scroll_page_up(animate=False)

    @property
    def _body(self) -> VerticalScroll:
        return self.query_one("#body", VerticalScroll)

    # -- drawing ------------------------------------------------------------------------------

    def _draw(self) -> None:
        view = self._view or View()
        width = self.size.width
        room = max(20, width - 3)  # what the body's padding and scrollbar leave
        half = (room - 3) // 2 if width >= WIDE else room
        shown = {
            "title": sections.title(view, self._server, max(20, width - 2)),
            "cluster": sections.cluster(view, room),
            "upstreams": sections.upstreams(view, room, sections.BLOCKS),
            "users": sections.users(view, half),
            "models": sections.models(view, half),
            "queue": sections.queue(view, room, _MOST_WAITING),
            "changes": sections.changes(
                self._history.changes, room, _MOST_CHANGES, sections.local_time
            ),
            "store": sections.store(view, room),
        }
        for name, lines in shown.items():
            section = self.query_one(f"#{name}", Static)
            section.set_class(not lines, "-empty")
            section.update(self._text(lines))
        self._draw_state()

    def _draw_state(self) -> None:
        room = max(20, self.size.width - 2)
        state: Line
        if self._lost is not None:
            since, why = self._lost
            seconds = sections.span_text(max(0, round(self._clock() - since)))
            state = [Span("no connection", "bad"), Span(f" for {seconds}: {why}", "")]
        elif self._paused:
            state = [Span("paused", "warn")]
        elif self._view is None:
            state = [Span("waiting for the first report", "dim")]
        else:
            state = [Span("live", "good"), *self._news()]
        keys = Span(_KEYS, "dim")
        if self._lost is None:  # else the reason gets the room of the keys
            state = cut(state, max(20, room - length([keys]) - 2))
        free = room - length(state) - length([keys])
        if free >= 2:
            state = [*state, Span(" " * free), keys]
        self.query_one("#state", Static).update(self._text([cut(state, room)]))

    def _news(self) -> Line:
        """The latest change, which may be out of sight above, while it is new."""
        changes = self._history.changes
        if not changes or self._clock() - changes[-1].at > _NEW:
            return []
        return [Span(f"  {changes[-1].text}", "bad" if changes[-1].bad else "")]

    def _text(self, lines: list[Line]) -> Text:
        styles = _STYLES if self._coloured else {}
        text = Text(no_wrap=True, end="")
        for number, line in enumerate(lines):
            if number:
                text.append("\n")
            for span in line:
                text.append(one_line(span.text), styles.get(span.style, ""))
        return text


class _Post:
    """Passes reports from the feed's thread to the app's."""

    def __init__(self, app: Top) -> None:
        self._app = app

    def report(self, report: dict[str, Any]) -> None:
        """See Listener."""
        self._app.post_message(Top.Reported(report))

    def lost(self, why: str) -> None:
        """See Listener."""
        self._app.post_message(Top.Lost(why))

    def failed(self, error: LlcudaError) -> None:
        """See Listener."""
        self._app.post_message(Top.Failed(error))
