"""An answer as blocks of safe HTML: those that are final once, the open one as it grows.

The blocks of an answer are numbered over all of its channels, in the order of its log, and are a
function of the log alone: a reader that has the first N of them, from wherever, goes on with the
block N. What a channel says until the next one begins is a text in Markdown of its own; of a tool
call it is plain text, and one block.

A definition of a link counts for the blocks behind it: the one before it is final already.

It blocks: a step takes as long as the parser needs for what was added since the last one, and for
at most 64 Ki characters before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llcuda_net.server.http.markdown.growing import Growing, GrowingCall, GrowingMarkdown
from llcuda_net.storage.channels import BEGINNING, TOOL_CALL, Switch, parts

#: Characters that are taken at once.
AT_ONCE = 64 << 10


class Step(NamedTuple):
    """What has changed of an answer.

    Attributes:
        final: blocks that are new and final.
        open: the open block; with `more` in the place of all, what there is more of it. None: there
            is none, or it is as it was.
        closed: there is no open block any more.
    """

    final: list[dict[str, Any]]
    open: dict[str, Any] | None = None
    closed: bool = False

    def __bool__(self) -> bool:
        return bool(self.final or self.open or self.closed)


class Blocks:
    """The blocks of one answer, of which all is added from the beginning of its log on.

    Args:
        have: blocks that the reader has: they are not rendered.

    Attributes:
        have: as given.
        count: blocks that are final.
        stale: something was added that no step has told.
    """

    def __init__(self, have: int = 0) -> None:
        self.count = 0
        self.stale = False
        self.have = have
        self._channel = BEGINNING
        self._text: Growing = GrowingMarkdown()
        self._final: list[dict[str, Any]] = []
        self._open = False

    def __repr__(self) -> str:
        return f"<Blocks {self.count} final, {self._text!r}>"

    def add(self, channel: Switch, text: str) -> None:
        """What comes next in the log, of one channel."""
        now = self._channel
        if (channel.kind, channel.index) != (now.kind, now.index):
            self._end()
            self._channel = channel
            self._text = GrowingCall() if channel.kind == TOOL_CALL else GrowingMarkdown()
        self._text.add(text)
        self.stale = True

    def step(self, *, render: bool = True) -> Step:
        """What has changed since the last step.

        Args:
            render: else only what costs next to nothing; the rest, with a later step.
        """
        grown = self._text.grown(self.have - self.count, render=render)
        self._take(grown.final)
        final, self._final = self._final, []
        open_: dict[str, Any] | None = None
        closed = False
        if grown.open is None:
            if grown.more:
                open_ = {"n": self.count, "more": grown.more}
        elif grown.open or self._channel.kind == TOOL_CALL:
            open_ = self._block(self.count, grown.open)
        else:
            closed = self._open
        self.stale = grown.stale
        self._open = open_ is not None or (self._open and not closed)
        return Step(final, open_, closed)

    def final(self) -> Step:
        """The blocks that are new and final; the open one is not looked at."""
        self._take(self._text.final(self.have - self.count))
        self.stale = True
        final, self._final = self._final, []
        return Step(final)

    @property
    def weight(self) -> int:
        """Characters that a step with rendering looks at, but for the blocks that are new."""
        return self._text.weight

    def end(self) -> Step:
        """What was not final: the log is whole."""
        self._end()
        self.stale = False
        final, self._final = self._final, []
        return Step(final)

    def _end(self) -> None:
        self._take(self._text.end(self.have - self.count))
        self._open = False

    def _take(self, final: Sequence[str | None]) -> None:
        for content in final:
            if content is not None:
                self._final.append(self._block(self.count, content))
            self.count += 1

    def _block(self, number: int, content: str) -> dict[str, Any]:
        channel = self._channel
        block: dict[str, Any] = {"n": number, "channel": channel.kind}
        if channel.kind == TOOL_CALL:
            named = {"index": channel.index, "id": channel.id, "name": channel.name}
            return {**block, **named, "text": content}
        return {**block, "html": content}


def blocks_of(pieces: Sequence[str], switches: Sequence[Switch]) -> list[dict[str, Any]]:
    """All blocks of a log; the last one is final, too."""
    blocks = Blocks()
    found: list[dict[str, Any]] = []
    for first, behind, channel in parts(switches, len(pieces)):
        text = "".join(pieces[first:behind])
        for at in range(0, max(len(text), 1), AT_ONCE):
            blocks.add(channel, text[at : at + AT_ONCE])
            found += blocks.final().final
    return found + blocks.end().final


def text_blocks(text: str) -> list[dict[str, Any]]:
    """The blocks of one text in Markdown."""
    return blocks_of([text], ())
