"""Markdown as rows of a terminal, painted; and plain text as rows, its words wrapped.

rich lays prose out. Code is never wrapped nor framed, so that what is copied from the terminal is
what the model wrote. All text must be harmless before it comes here: what is added are colours.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from io import StringIO
from typing import TYPE_CHECKING, Any, ClassVar

from llcuda_net.cli.tables import width

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Lines of a code block that are read again for the next one's colours.
_CONTEXT = 200
#: Colours of code by pygments' token types; the nearest one above a type counts.
_COLOURS = {
    "Token.Comment": "2",
    "Token.Keyword": "35",
    "Token.Literal.String": "32",
    "Token.Literal.Number": "33",
    "Token.Name.Function": "34",
    "Token.Name.Class": "34",
    "Token.Name.Decorator": "34",
    "Token.Name.Tag": "34",
    "Token.Name.Builtin": "36",
}
_PAINTED = re.compile(r"\x1b\[[0-9;]*m")


def paint(text: str, code: str) -> str:
    """The text in a colour, whatever it is shown on."""
    return f"\x1b[{code}m{text}\x1b[0m" if text else ""


def bare(row: str) -> str:
    """A row without its colours."""
    return _PAINTED.sub("", row)


def prose_rows(text: str, columns: int, *, whole: bool) -> list[str]:
    """Markdown as painted rows that fit into so many columns.

    Args:
        whole: nothing is added to it any more; else marks that are still open count as closed.
    """
    console = _console()
    options = console.options.update(width=columns, max_width=columns)
    document = _markdown_class()(text if whole else closed(text), hyperlinks=False)
    rows: list[str] = []
    for line in console.render_lines(document, options, pad=False):
        said = "".join(segment.text for segment in line)
        left = len(said.rstrip())
        row = ""
        for segment in line:
            part = segment.text[:left]
            left -= len(part)
            style = segment.style
            row += style.render(part, color_system=_standard()) if style and part else part
        if row or (rows and rows[-1]):  # rich leaves more than one row free around some elements
            rows.append(row)
    return rows if rows and rows[-1] else rows[:-1]


def plain_rows(text: str, columns: int) -> list[str]:
    """Text as rows of whole words that fit into so many columns; what has no space is cut."""
    from rich.text import Text

    console = _console()
    rows = []
    for line in text.split("\n"):
        if width(line) <= columns:
            rows.append(line)
            continue
        wrapped = Text(line).wrap(console, columns)
        rows += [part.plain.rstrip() for part in wrapped]
    return rows


def closed(text: str) -> str:
    """Markdown that has just begun to mark something, as if the mark were closed here."""
    head, gap, last = text.rpartition("\n\n")
    if last.count("`") % 2:
        return f"{text}`" if not text.endswith("`") else text[:-1]
    plain = re.sub(r"`[^`]*`", "", last)
    if plain.count("**") % 2:
        last = last[:-2] if last.endswith("**") else last.rstrip("* \n") + "**"
        return head + gap + last
    single = re.sub(r"^\s*[*+-] ", "", plain.replace("**", ""), flags=re.MULTILINE)
    if single.count("*") % 2:
        last = last[:-1] if last.endswith("*") else last.rstrip() + "*"
    return head + gap + last


class Highlighter:
    """The colours of one code block, line by line.

    Args:
        language: as its fence says; without one, or of one that nobody knows, there are none.
    """

    def __init__(self, language: str) -> None:
        self._lines: list[str] = []
        self._lexer = _lexer(language.lower()) if language else None

    def line(self, text: str, *, whole: bool = True) -> str:
        """A line of it, painted.

        Args:
            whole: the next one comes behind it; else it is this one again, longer.
        """
        before = self._lines[-_CONTEXT:]
        if whole:
            self._lines.append(text)
        if self._lexer is None or not text.strip():
            return text
        last = len(before)
        row, number = [], 0
        for kind, said in self._lexer.get_tokens("\n".join([*before, text])):
            parts = said.split("\n")
            for place, part in enumerate(parts):
                if number == last and part:
                    colour = _colour(str(kind))
                    row.append(paint(part, colour) if colour else part)
                number += place < len(parts) - 1
        found = "".join(row)
        # A lexer that leaves something out may not change what the model wrote.
        return found if bare(found) == text else text


def _colour(kind: str) -> str:
    while "." in kind:
        if kind in _COLOURS:
            return _COLOURS[kind]
        kind = kind.rpartition(".")[0]
    return ""


@lru_cache(16)
def _lexer(language: str) -> Any:
    lexers: Any = import_module("pygments.lexers")  # which has no types
    try:
        return lexers.get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except lexers.ClassNotFound:
        return None


@lru_cache(1)
def _console() -> Console:
    from rich.console import Console
    from rich.theme import Theme

    theme = Theme({"markdown.code": "cyan", "markdown.h1": "bold underline", "markdown.h2": "bold"})
    return Console(file=StringIO(), force_terminal=True, color_system="standard", theme=theme)


@lru_cache(1)
def _standard() -> Any:
    from rich.color import ColorSystem

    return ColorSystem.STANDARD


@lru_cache(1)
def _markdown_class() -> Any:
    from rich import markdown

    class Heading(markdown.Heading):
        """At the left, without a frame."""

        def __rich_console__(self, console: Console, options: Any) -> Any:
            text: Text = self.text
            text.justify = "left"
            yield text

    class CodeBlock(markdown.CodeBlock):
        """Within a list: as it is."""

        def __rich_console__(self, console: Console, options: Any) -> Any:
            from rich.text import Text

            yield Text(str(self.text).rstrip("\n"), no_wrap=True, overflow="ignore", style="cyan")

    class Markdown(markdown.Markdown):
        """As rich has it, but for these."""

        elements: ClassVar[dict[str, Any]] = {
            **markdown.Markdown.elements,
            "heading_open": Heading,
            "fence": CodeBlock,
            "code_block": CodeBlock,
        }

    return Markdown
