"""What a terminal shows of an answer that grows: nothing twice, nothing lost, code as it is."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.cli.chat.screen.blocks import Blocks, Kind
from llcuda_net.cli.chat.screen.markdown import Highlighter, bare, closed, plain_rows, prose_rows
from llcuda_net.cli.chat.screen.painter import Painter

ANSWER = """\
# A title

Some **bold words** and `code`, in a sentence that is so long that it must be wrapped.

- one
- two, with *more* words than there is room for on a row of this terminal
  - nested

   still of the list

```python
def add(a, b):
    \"\"\"Of two,

    and more.\"\"\"
    return a + b  # a comment that is longer than a row of the terminal, and is not wrapped by us
```
| a | b |
|---|---|
| 1 | 2 |

The end."""


class Terminal:
    """A painter on a terminal in memory."""

    def __init__(self, columns: int = 40, rows: int = 60, *, colours: bool = True) -> None:
        self.size = (columns, rows)
        self.screen = pyte.HistoryScreen(columns, rows, history=500, ratio=0.5)
        self._stream = pyte.Stream(self.screen)
        self.file = io.StringIO()
        self.painter = Painter(self.file, lambda: self.size, colours=colours)

    def draw(self, text: str) -> None:
        self.painter.add(text)
        self.painter.draw()
        self.take()

    def take(self) -> str:
        """Show what was written; gives it."""
        written = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        self._stream.feed(written.replace("\n", "\r\n"))
        return written

    def finish(self) -> list[str]:
        self.painter.finish()
        self.take()
        return self.lines

    @property
    def lines(self) -> list[str]:
        above = [
            "".join(row[x].data for x in range(self.screen.columns))
            for row in self.screen.history.top
        ]
        shown = [line.rstrip() for line in (*above, *self.screen.display)]
        while shown and not shown[-1]:
            del shown[-1]
        return shown


def pieces(text: str, size: int) -> Iterator[str]:
    for at in range(0, len(text), size):
        yield text[at : at + size]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_it_does_not_matter_how_it_came(size: int) -> None:
    whole, parts = Terminal(), Terminal()
    whole.draw(ANSWER)
    for piece in pieces(ANSWER, size):
        parts.draw(piece)
    assert parts.finish() == whole.finish()


def test_markdown_as_somebody_sees_it() -> None:
    terminal = Terminal()
    for piece in pieces(ANSWER, 4):
        terminal.draw(piece)
    shown = [line for line in terminal.finish() if line.strip("─ ") or not line]
    assert shown == [  # without the rule below the head of the table
        "A title",
        "",
        "Some bold words and code, in a sentence",
        "that is so long that it must be",
        "wrapped.",
        "",
        " • one",
        " • two, with more words than there is",
        "   room for on a row of this terminal",
        "    • nested",
        "   still of the list",
        "",
        "```python",
        "def add(a, b):",
        '    """Of two,',
        "",
        '    and more."""',
        "    return a + b  # a comment that is lo",
        "nger than a row of the terminal, and is",
        "not wrapped by us",
        "```",
        " a  b",
        " 1  2",
        "",
        "The end.",
    ]


def test_what_has_scrolled_away_is_not_printed_again() -> None:
    """Each row of a long answer stands once, on a terminal of five rows."""
    terminal = Terminal(30, 5)
    text = "\n\n".join(f"Paragraph {n} of **many** others, each of some rows." for n in range(30))
    written = 0
    for piece in pieces(text, 5):
        terminal.painter.add(piece)
        terminal.painter.draw()
        written += len(terminal.take())
    lines = terminal.finish()
    assert [line for line in lines if "Paragraph" in line] == [
        f"Paragraph {n} of many others," for n in range(30)
    ]
    assert written < 40 * len(text)  # of the growing paragraph, rows that differ and no others


def test_words_that_follow_are_written_behind_those_that_stand() -> None:
    terminal = Terminal()
    terminal.draw("A word")
    terminal.painter.add(" and one")
    terminal.painter.draw()
    assert terminal.take() == " and one"


def test_without_colours_it_is_plain_text_of_whole_words() -> None:
    terminal = Terminal(30, colours=False)
    terminal.draw("# Not **painted**, but wrapped where a word ends.\n\n```\nx = '" + "y" * 40)
    written = terminal.file.getvalue()
    lines = terminal.finish()
    assert "\x1b[1m" not in written
    assert lines[:2] == ["# Not **painted**, but", "wrapped where a word ends."]
    assert "".join(lines[4:]) == "x = '" + "y" * 40


def test_a_note_between_leaves_what_stands() -> None:
    terminal = Terminal()
    terminal.draw("It begins")
    terminal.file.write("\nnote: the connection was lost\n")
    terminal.painter.interrupted()
    terminal.draw(" and goes on.")
    assert terminal.finish() == ["It begins", "note: the connection was lost", "and goes on."]


def test_a_terminal_of_another_width_goes_on_below() -> None:
    terminal = Terminal(40)
    terminal.draw("Some words that stand there and")
    terminal.size = (24, 60)
    terminal.draw(" others that come when it is narrower.")
    lines = terminal.finish()
    assert lines[0] == "Some words that stand there and"
    assert lines[1:] == ["others that come when", "it is narrower."]


def test_a_terminal_obeys_nothing_that_a_model_says() -> None:
    terminal = Terminal(80)
    terminal.painter.add("# \x1b]0;title\x07\n\n**\x1b[2J**\n\n```c\n\x1b[31mx\x9b\n```\n")
    terminal.painter.finish()
    written = terminal.file.getvalue()
    left = bare(written)
    assert "\x1b" not in left.replace("\x1b[J", "")
    assert "\x07" not in left
    assert "\\x1b]0;title\\x07" in left


_WORDS = st.sampled_from(
    [
        "word",
        "**b**",
        "*i",
        "`c`",
        "\n",
        "\n\n",
        "- x",
        "1. y",
        "```",
        "```py\n",
        "| a |",
        "#",
        "日本",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_WORDS, max_size=30), st.integers(1, 9))
def test_code_comes_as_it_is_and_nothing_is_lost(words: list[str], size: int) -> None:
    text = " ".join(words)
    blocks = Blocks()
    found = []
    for piece in pieces(text, size):
        blocks.add(piece)
        found += list(blocks.take())
    last = blocks.end()
    found += [last] if last is not None else []
    said = "".join(block.text for block in found)
    assert said.split() == text.split()
    again = Blocks()
    again.add(text)
    at_once = list(again.take())
    last = again.end()
    at_once += [last] if last is not None else []
    assert [(b.kind, b.text) for b in found if b.kind is Kind.CODE] == [
        (b.kind, b.text) for b in at_once if b.kind is Kind.CODE
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a **bo", "a **bo**"),
        ("a **", "a "),
        ("a `co", "a `co`"),
        ("an *it", "an *it*"),
        ("* a list\n* of two", "* a list\n* of two"),
        ("**done** and", "**done** and"),
        ("one **b**\n\ntwo **c", "one **b**\n\ntwo **c**"),
    ],
)
def test_marks_that_are_open_count_as_closed(text: str, shown: str) -> None:
    assert closed(text) == shown


def test_colours_of_code_change_none_of_it() -> None:
    lines = ["def f(x):", '\t"""A', '  text."""', "    return 'a' + 1  # \u65e5\u672c", "", "  "]
    highlighter = Highlighter("python")
    painted = [highlighter.line(line) for line in lines]
    assert [bare(line) for line in painted] == lines
    assert "\x1b[32m" in painted[2]  # still within the string
    unknown = Highlighter("no such language")
    assert [unknown.line(line) for line in lines] == lines


def test_rows_are_no_wider_than_the_terminal() -> None:
    assert max(map(len, plain_rows("word " * 30, 20))) <= 20
    assert max(len(bare(row)) for row in prose_rows("word " * 30, 20, whole=True)) <= 20
