r"""Cuts a growing text in Markdown into its top blocks; what is cut off is final.

A block is cut off when no later line can change where it ends. Markdown is made of lines, so only
lines that are complete count:

- All top blocks but the last, since each ends where the next one begins.
- The last, if it is of a kind that is over with its own line (a heading, a rule, the end of a fence
  or of a formula), or if an empty line behind it ends its kind: a paragraph, a table, a quote. A
  list and indented code may go on behind empty lines.
- A line that is not complete counts for this alone: behind an empty line, if it begins with what
  can only begin another block, the list before it is over.

The lines of a block begin where those of the one before end, so what is between them (definitions
of links, empty lines) is part of it. Only so does the parser, given these lines alone, see what it
would have seen in the whole text: a definition may turn out to be a paragraph with its next line.

Where nothing of `MAX_TEXT` characters can be cut off by that, all of them are: no parser looks at
more at a time. Fences are read without it, up to `MAX_CODE` characters.

All of this depends on the text from the last cut on, and not on the parts in which it came.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import NamedTuple

from markdown_it.token import Token

from llcuda_net.server.http.markdown.formulas import BLOCK
from llcuda_net.server.http.markdown.render import MAX_TEXT, block_tokens

#: Characters of a fence that are one block.
MAX_CODE = 1 << 20
_ENDED_BY_EMPTY_LINE = frozenset(("paragraph_open", "table_open", "blockquote_open", BLOCK))
_OVER_AT_ONCE = frozenset(("heading_open", "hr"))
#: A line of which no further character can make one that goes on with a list.
_BEGINS_ANEW = re.compile(r"[^\s*+\-\d]|\*\*[^*\s]|\d+[^\d.)]")
_EMPTY_LINE_LAST = re.compile(r"(?:^|\n)[ \t]*\n\Z")
#: Blanks of an empty line that is seen as one.
_MOST_BLANKS = 100
_OPENING = re.compile(r"( {0,3})(`{3,}|~{3,})")


class Fence(NamedTuple):
    """A fence of code, or a part of one.

    Attributes:
        before: the lines before its first one: definitions of links, empty lines.
        opening: its first line.
        code: the lines in it, as they were written.
    """

    before: str
    opening: str
    code: str = ""

    @property
    def indent(self) -> int:
        """Blanks before its first line; as many are taken off the lines in it."""
        return len(self.opening) - len(self.opening.lstrip(" "))

    @property
    def mark(self) -> str:
        """What begins it."""
        found = _OPENING.match(self.opening)
        assert found is not None
        return found[2]

    def may_close(self, line: str) -> bool:
        """Whether a line that is not complete may become the one that ends it."""
        return not line.lstrip(" ").lstrip(self.mark[0]).strip(" \t")

    def dedented(self, code: str) -> str:
        """Lines in it as they are to be shown."""
        indent = self.indent
        if not indent:
            return code

        def rest(found: re.Match[str]) -> str:
            width = end = 0
            while width < indent and end < len(found[0]):
                width += 4 - width % 4 if found[0][end] == "\t" else 1
                end += 1
            return " " * (width - indent) + found[0][end:]  # a tab may be wider than that

        return re.sub(rf"^[ \t]{{1,{indent}}}", rest, code, flags=re.MULTILINE)


class Cut(NamedTuple):
    """What was cut off.

    Attributes:
        text: the lines of one block; of a fence, nothing.
        fence: what it is, where it is one.
        forced: it is only so much of what is too long to be looked at together.
    """

    text: str
    fence: Fence | None = None
    forced: bool = False


class Splitter:
    """Takes a text part by part.

    Attributes:
        rest: what is not cut off yet; where a fence is open, only the lines in it.
        fence: the fence that is open, without what is in it.
    """

    def __init__(self) -> None:
        self.rest = ""
        self.fence: Fence | None = None
        self._held = ""  # a carriage return, of which a line feed may come
        self._seen = (0, False)  # of the rest, what was looked at in vain
        self._scanned = 0  # characters of an open fence in which its end is not
        self._closing = re.compile("")

    def __repr__(self) -> str:
        return f"<Splitter {'in a fence, ' if self.fence else ''}{len(self.rest)} characters>"

    def add(self, text: str) -> None:
        """Take what comes next."""
        if self._held or "\r" in text:
            text = self._held + text
            self._held = "\r" if text.endswith("\r") else ""
            text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        if "\0" in text:
            text = text.replace("\0", "\ufffd")
        self.rest += text

    def cuts(self) -> list[Cut]:
        """What can be cut off now, in its order."""
        found: list[Cut] = []
        while self._cut_fence(found) if self.fence is not None else self._cut_blocks(found):
            pass
        return found

    def end(self) -> list[Cut]:
        """What can be cut off now, and then all that is left: no more text comes."""
        if self._held:
            self.add("\n")  # with the one that is held it is one
        if self.fence is not None and self._closing.search(self.rest + "\n", self._scanned):
            self.rest += "\n"
        found = self.cuts()
        if self.fence is not None:
            line = self.rest.rfind("\n") + 1
            code = self.rest if self.rest[line:].strip(" \t") else self.rest[:line]
            found.append(Cut("", self.fence._replace(code=code)))
        else:
            found += [block.cut(self.rest) for block in _parsed(self.rest)]
        self.rest, self.fence = "", None
        return found

    def _cut_blocks(self, found: list[Cut]) -> bool:
        """Outside of a fence; whether there may be more to cut off."""
        full = len(self.rest) >= MAX_TEXT
        complete = self.rest.rfind("\n", 0, MAX_TEXT) + 1
        anew = self._anew(complete)
        if self._seen == (complete, anew) and not full:
            return False
        source = self.rest[:complete]
        blocks = _parsed(source + "x\n" * anew) if complete else []
        behind = 0
        for block in blocks:
            if block is blocks[-1] and not block.is_over(source):
                if block.token.type == "fence":
                    self._enter(block)
                    return True
                break
            found.append(block.cut(source))
            behind = block.end
        if full and not behind:
            behind = complete or MAX_TEXT
            found.append(Cut(self.rest[:behind], forced=True))
        self.rest = self.rest[behind:]
        self._seen = (complete - behind, anew)
        return full

    def _anew(self, complete: int) -> bool:
        """Whether the line that is not complete begins another block than what is before it."""
        return (
            _EMPTY_LINE_LAST.search(self.rest, max(0, complete - _MOST_BLANKS), complete)
            is not None
            and _BEGINS_ANEW.match(self.rest, complete) is not None
        )

    def _enter(self, block: _Block) -> None:
        """A fence that is not over: its lines are not looked at by the parser."""
        self.fence = block.fence(self.rest)._replace(code="")
        mark = self.fence.mark
        self._closing = re.compile(rf"^ {{0,3}}{mark[0]}{{{len(mark)},}}[ \t]*\n", re.MULTILINE)
        self.rest = self.rest[block.begin + len(self.fence.before) + len(self.fence.opening) :]
        self._scanned = 0

    def _cut_fence(self, found: list[Cut]) -> bool:
        """In a fence; whether there may be more to cut off."""
        assert self.fence is not None
        closing = self._closing.search(self.rest, self._scanned, MAX_CODE)
        if closing is not None:
            found.append(Cut("", self.fence._replace(code=self.rest[: closing.start()])))
            self.rest, self.fence = self.rest[closing.end() :], None
            self._seen = (0, False)
            return True
        self._scanned = self.rest.rfind("\n", 0, MAX_CODE) + 1
        if len(self.rest) < MAX_CODE:
            return False
        behind = self._scanned or MAX_CODE
        found.append(Cut("", self.fence._replace(code=self.rest[:behind])))
        self.fence = self.fence._replace(before="")
        self.rest = self.rest[behind:]
        self._scanned = 0
        return True


class _Block(NamedTuple):
    """A top block of a source, as the parser sees it.

    Attributes:
        begin, end: of its lines, with those before it that are no block.
        first: where its own first line begins.
        token: that opens it.
        behind: where the line after it ends.
    """

    begin: int
    first: int
    end: int
    behind: int
    token: Token

    def is_over(self, source: str) -> bool:
        """Whether it is over, though nothing follows it but empty lines."""
        kind = self.token.type
        if kind in _OVER_AT_ONCE:
            return True
        if kind == "fence":
            return self._closes
        if kind == BLOCK and self.token.meta["closed"]:
            return True
        return (
            kind in _ENDED_BY_EMPTY_LINE
            and self.end < len(source)
            and not source[self.end : self.behind].strip(" \t\n")
        )

    def cut(self, source: str) -> Cut:
        """It, as it is final."""
        if self.token.type == "fence":
            return Cut("", self.fence(source))
        return Cut(source[self.begin : self.end])

    def fence(self, source: str) -> Fence:
        """It, if it is one."""
        inner = source.find("\n", self.first) + 1 or len(source)
        end = self.end
        if self._closes:
            end = source.rfind("\n", 0, end - 1) + 1
        return Fence(
            source[self.begin : self.first],
            source[self.first : inner],
            source[inner : max(inner, end)],
        )

    @property
    def _closes(self) -> bool:
        """Of a fence: its last line ends it."""
        assert self.token.map is not None
        first, behind = self.token.map
        return behind - first - 2 == self.token.content.count("\n")


def _parsed(source: str) -> list[_Block]:
    """The top blocks of a source."""
    offsets = [0, *accumulate(len(line) + 1 for line in source.split("\n"))]
    found: list[_Block] = []
    begin = 0
    for token in block_tokens(source):
        if token.level == 0 and token.nesting >= 0 and token.map is not None:
            first, behind = token.map
            end = min(offsets[behind], len(source))
            next_ = offsets[min(behind + 1, len(offsets) - 1)]
            found.append(_Block(begin, offsets[first], end, min(next_, len(source)), token))
            begin = end
    return found
