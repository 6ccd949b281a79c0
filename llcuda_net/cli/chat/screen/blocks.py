"""Markdown that grows, cut into what can be drawn for good and what may still change.

A paragraph, a list or a table may look otherwise with its next word; the lines of a code block do
not. So prose is kept together until an empty line ends it, and code comes line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
#: What may become one.
_HALF_FENCES = ("`", "``", "~", "~~")
_MARKER = re.compile(r"\s*([-+*]|\d{1,9}[.)])(\s|$)")


class Kind(Enum):
    """What a block is."""

    PROSE = auto()
    FENCE = auto()  # the line that begins or ends a code block
    CODE = auto()  # one line of it


@dataclass(slots=True)
class Block:
    """A piece of the text that is drawn by itself.

    Attributes:
        text: without the line break at its end.
        language: of a fence that begins a code block, as it says.
        whole: nothing is added to it any more.
        apart: whether an empty line is before it.
    """

    text: str
    kind: Kind = Kind.PROSE
    language: str = ""
    whole: bool = True
    apart: bool = False


@dataclass(slots=True)
class Blocks:
    """Takes text as it comes, and gives the blocks that are whole.

    Attributes:
        rest: the text of the block that still grows.
    """

    rest: str = ""
    _fence: str = ""  # of the code block that is open
    _empty: bool = False  # an empty line came before the rest

    def add(self, text: str) -> None:
        """Take what comes next."""
        self.rest += text

    def take(self) -> Iterator[Block]:
        """The blocks that are whole by now, in their order; they are gone from the rest."""
        while (block := self._next()) is not None:
            yield block

    def open(self) -> Block | None:
        """The block that still grows, as it is now; None: there is nothing of it."""
        if self._fence:
            return Block(self.rest, Kind.CODE, whole=False) if self.rest else None
        if not self.rest.strip():
            return None
        maybe = _FENCE.match(self.rest) is not None or self.rest.strip() in _HALF_FENCES
        kind = Kind.FENCE if maybe else Kind.PROSE
        return Block(self.rest.rstrip("\n"), kind, whole=False, apart=self._empty)

    def end(self) -> Block | None:
        """The last block, where no more comes."""
        found = self.open()
        self.rest, self._fence, self._empty = "", "", False
        if found is not None:
            found.whole = True
        return found

    def cut(self, size: int) -> None:
        """Forget so many characters of the rest: they stand where nothing can change them."""
        self.rest, self._empty = self.rest[size:], False

    def _next(self) -> Block | None:
        if self._fence:
            return self._code_line()
        self._skip_empty()
        line, newline, _ = self.rest.partition("\n")
        if not newline:
            return None
        if (found := _FENCE.fullmatch(line)) is not None:
            return self._begin_code(line, found[1], found[2].strip())
        size = self._prose()
        if size is None:
            return None
        text, self.rest = self.rest[:size], self.rest[size:]
        return Block(text.rstrip("\n"), apart=self._had_empty())

    def _prose(self) -> int | None:
        """Characters of the prose that the rest begins with; None: it may go on."""
        at = self.rest.find("\n") + 1
        in_list = _MARKER.match(self.rest) is not None
        while True:
            end = self.rest.find("\n", at)
            line = self.rest[at:] if end < 0 else self.rest[at:end]
            if not line.strip():
                if end < 0:
                    return None
                # What is indented behind the empty line belongs to the list before it.
                behind = self.rest[end + 1 :].lstrip("\n")
                if not behind:
                    return None
                if not (in_list and behind[0] in " \t"):
                    return at
            elif _FENCE.match(line) is not None and not (in_list and line[0] in " \t"):
                return at
            if end < 0:
                return None
            at = end + 1

    def _begin_code(self, line: str, fence: str, about: str) -> Block:
        self._pass(line)
        self._fence = fence
        return Block(line, Kind.FENCE, about.partition(" ")[0], apart=self._had_empty())

    def _code_line(self) -> Block | None:
        line, newline, _ = self.rest.partition("\n")
        if not newline:
            return None
        self._pass(line)
        closing = line.strip()
        if closing.startswith(self._fence) and not closing.strip(self._fence[0]):
            self._fence = ""
            return Block(line, Kind.FENCE)
        return Block(line, Kind.CODE)

    def _pass(self, line: str) -> None:
        self.rest = self.rest[len(line) + 1 :]

    def _skip_empty(self) -> None:
        while self.rest:
            line, newline, after = self.rest.partition("\n")
            if line.strip() or not newline:
                return
            self.rest, self._empty = after, True

    def _had_empty(self) -> bool:
        found, self._empty = self._empty, False
        return found
