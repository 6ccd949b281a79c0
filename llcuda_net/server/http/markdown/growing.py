"""One text of an answer while it grows: its final blocks as HTML, and its open one.

The open block is rendered as rarely as can be. What comes may be more of its last text, in which no
character has a meaning in Markdown; then that is all there is to say of it, as in an open fence.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from markdown_it.token import Token

from llcuda_net.server.http.markdown.render import (
    Definitions,
    as_written,
    define,
    escaped,
    html_and_tokens,
    to_html,
)
from llcuda_net.server.http.markdown.split import Cut, Fence, Splitter

#: Definitions of links that are remembered.
_MOST_DEFINITIONS = 1000
_END_OF_CODE = "</code></pre>"
#: Behind a text, what is only more of it; the second where the text could go on as a link or as a
#: character by its name.
_PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f*_`~$\\\[\]<>&#\u2028\u2029]*")
_PLAINER = re.compile(r"[^\x00-\x1f\x7f-\x9f*_`~$\\\[\]<>&#\u2028\u2029();@]*")
_MAY_GO_ON_OTHERWISE = re.compile(r"\]\(|&|<")
_LETTER = re.compile(r"[^\W\d_]")
_TEXTS = ("paragraph_open", "heading_open")


class Grown(NamedTuple):
    """What has changed of a text.

    Attributes:
        final: blocks that are new and final; None in the place of one that was not to be rendered.
        open: the open block, whole; empty: there is none; None: it is as it was, but for `more`.
        more: what there is more of it.
        stale: there is more to say, which takes rendering.
    """

    final: Sequence[str | None] = ()
    open: str | None = None
    more: str = ""
    stale: bool = False


class Growing(Protocol):
    """One text of an answer, or one of its tool calls."""

    def add(self, text: str) -> None:
        """Take what comes next."""

    def grown(self, skip: int, *, render: bool) -> Grown:
        """What has changed since the last time, or, without rendering, as much of it as that says.

        Args:
            skip: of the blocks that are new and final, so many first are not to be rendered.
        """

    @property
    def weight(self) -> int:
        """Characters that are looked at to render the open block."""

    def final(self, skip: int) -> Sequence[str | None]:
        """The blocks that are new and final; nothing is found out of the open one."""

    def end(self, skip: int) -> Sequence[str | None]:
        """The blocks that were not final: no more text comes."""


class GrowingMarkdown:
    """A text in Markdown."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._definitions: Definitions = {}
        self._shown = 0  # characters of the rest that the reader has
        self._plain: re.Pattern[str] | None = None  # what is only more of the open block
        self._fence: Fence | None = None  # the open block, where it is one

    def __repr__(self) -> str:
        return f"<GrowingMarkdown {self._splitter!r}>"

    def add(self, text: str) -> None:
        """See Growing."""
        self._splitter.add(text)

    def grown(self, skip: int, *, render: bool) -> Grown:
        """See Growing."""
        splitter = self._splitter
        final = self.final(skip) if render or splitter.fence is not None else []
        if splitter.fence is not None:
            return self._fenced(final, splitter.fence)
        if self._plain is not None and self._plain.fullmatch(splitter.rest, self._shown):
            more, self._shown = splitter.rest[self._shown :], len(splitter.rest)
            return Grown(final, more=more)
        if not (render or final):
            return Grown(stale=True)
        rest = splitter.rest
        markup, tokens = html_and_tokens(rest, ChainMap({}, self._definitions))
        self._fence = None
        self._plain = _plain_behind(rest, tokens)
        self._shown = len(rest.rstrip(" "))
        return Grown(final, markup)

    @property
    def weight(self) -> int:
        """See Growing."""
        return 0 if self._splitter.fence is not None else len(self._splitter.rest)

    def final(self, skip: int) -> Sequence[str | None]:
        """See Growing."""
        cuts = self._splitter.cuts()
        if cuts:
            self._plain = self._fence = None
        return self._rendered(cuts, skip)

    def end(self, skip: int) -> Sequence[str | None]:
        """See Growing."""
        return self._rendered(self._splitter.end(), skip)

    def _rendered(self, cuts: Sequence[Cut], skip: int) -> list[str | None]:
        return [self._html(cut, render=place >= skip) for place, cut in enumerate(cuts)]

    def _html(self, cut: Cut, *, render: bool) -> str | None:
        definitions = self._definitions
        if len(definitions) >= _MOST_DEFINITIONS:
            definitions = ChainMap({}, definitions)
        if cut.forced:
            return as_written(cut.text) if render else None
        if cut.fence is not None:
            define(cut.fence.before, definitions)
            return _code(cut.fence, cut.fence.code) if render else None
        if not render:
            define(cut.text, definitions)
            return None
        return to_html(cut.text, definitions)

    def _fenced(self, final: Sequence[str | None], fence: Fence) -> Grown:
        code = self._splitter.rest
        last = code.rfind("\n") + 1
        if fence.indent or fence.may_close(code[last:]):
            code = code[:last]
        if self._fence is None:
            self._fence, self._shown = fence, len(code)
            return Grown(final, _code(fence, code))
        more, self._shown = fence.dedented(code[self._shown :]), len(code)
        return Grown(final, more=more)


class GrowingCall:
    """A tool call: its arguments, which are no Markdown."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._told = 0  # of the parts

    def __repr__(self) -> str:
        return f"<GrowingCall {len(self._parts)} parts>"

    def add(self, text: str) -> None:
        """See Growing."""
        self._parts.append(text)

    def grown(self, skip: int, *, render: bool) -> Grown:
        """See Growing."""
        new = "".join(self._parts[self._told :])
        told, self._told = self._told, len(self._parts)
        return Grown(more=new) if told else Grown(open=new)

    @property
    def weight(self) -> int:
        """See Growing."""
        return 0

    def final(self, skip: int) -> Sequence[str | None]:
        """See Growing."""
        return ()

    def end(self, skip: int) -> Sequence[str | None]:
        """See Growing."""
        return ["".join(self._parts) if skip < 1 else None]


def _code(fence: Fence, code: str) -> str:
    head, found, _ = to_html(fence.opening).rpartition(_END_OF_CODE)
    return f"{head if found else '<pre><code>'}{escaped(fence.dedented(code))}{_END_OF_CODE}\n"


def _plain_behind(text: str, tokens: Sequence[Token]) -> re.Pattern[str] | None:
    """What may follow a text without changing anything of what it is; None: nothing may.

    Its last line must be text that goes on: with a letter in it no further character makes it the
    beginning of a list, a rule, a table or anything else that is not text.
    """
    inner = [place for place, token in enumerate(tokens) if token.nesting >= 0]
    if not inner or "]:" in text:
        return None
    last = inner[-1]
    token = tokens[last]
    if token.type != "inline" or tokens[last - 1].type not in _TEXTS or token.map is None:
        return None
    line = text.rfind("\n") + 1
    end = text[-1]
    if token.map[1] != text.count("\n") + 1 or not _LETTER.search(text, line):
        return None
    if not _PLAIN.fullmatch(end) or (end.isspace() and end != " "):
        return None
    return _PLAINER if _MAY_GO_ON_OTHERWISE.search(text) else _PLAIN
