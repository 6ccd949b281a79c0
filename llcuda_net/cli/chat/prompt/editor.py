"""Where a question is typed: several lines, pasted text as it is, and what was typed before.

prompt_toolkit edits the lines. Enter sends, unless a block that began with three quotation marks is
still open or the line ends with a backslash; Alt+Enter always begins a line. A paste is inserted
whole, since the terminal says where it begins and ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from llcuda_net.cli.chat.prompt.history import ChatHistory
from llcuda_net.util.terminal import is_terminal, wants_colour

PROMPT, _MORE = "> ", "… "
_QUOTES = '"""'


class Editor:
    """Reads questions from a terminal.

    Args:
        history: what was typed before.
        words: gives what may come at the beginning of a line, as it is typed so far.
    """

    def __init__(self, history: ChatHistory, words: Callable[[str], Iterable[str]]) -> None:
        # Where the answers go into a file, the lines are edited on the other stream.
        file = sys.stdout if is_terminal(sys.stdout) else sys.stderr
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=_MORE,
            key_bindings=_bindings(),
            history=history,
            completer=_Words(words),
            complete_style=CompleteStyle.READLINE_LIKE,
            enable_open_in_editor=True,
            reserve_space_for_menu=0,
            output=_output(file),
        )

    def read(self, begun: str = "") -> str:
        """The next question.

        Args:
            begun: what stands there to be changed.

        Raises:
            EOFError: Ctrl-D was typed on an empty line.
            KeyboardInterrupt: Ctrl-C was typed on an empty line.
        """
        while True:
            try:
                return unquoted(self._session.prompt(default=begun))
            except KeyboardInterrupt:
                if not self._session.default_buffer.text and not begun:
                    raise
                begun = ""


def is_open(text: str) -> bool:
    """Whether more lines belong to a text that was typed."""
    return text.lstrip().startswith(_QUOTES) and (
        len(text.strip()) < 2 * len(_QUOTES) or not text.rstrip().endswith(_QUOTES)
    )


def unquoted(text: str) -> str:
    """A text without the quotation marks that make it one."""
    inner = text.strip()
    if inner.startswith(_QUOTES) and not is_open(text):
        return inner[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return text


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("escape", "c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


class _Words(Completer):
    """Completes the first line, where it begins with a slash."""

    def __init__(self, words: Callable[[str], Iterable[str]]) -> None:
        self._words = words

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        """What begins with what was typed."""
        begun = document.text_before_cursor
        if begun.startswith("/") and "\n" not in begun:
            for word in self._words(begun):
                if word.startswith(begun):
                    yield Completion(word, start_position=-len(begun))


def _output(file: TextIO) -> Any:
    """Of a terminal that is not asked where its cursor is: the answer would be read as typed."""
    depth = ColorDepth.DEPTH_4_BIT if wants_colour(file) else ColorDepth.DEPTH_1_BIT
    found = Vt100_Output.from_pty(file, default_color_depth=depth, enable_bell=False)
    found.enable_cpr = False
    return found
