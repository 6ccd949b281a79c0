"""Questions as plain lines: from a pipe or a file, and from a terminal that can do nothing else."""

from __future__ import annotations

import sys
from contextlib import suppress

from llcuda_net.cli.common import fail
from llcuda_net.util.terminal import echo, is_terminal

PROMPT = "> "


class NotTextError(Exception):
    """A line is not UTF-8 text."""


class Lines:
    """Reads standard input, a question a line."""

    def __init__(self) -> None:
        self._interactive = is_terminal(sys.stdin)
        if self._interactive:
            # Gives input() its line editing and the session's history.
            with suppress(ImportError):
                import readline  # noqa: F401

    def read(self, begun: str = "") -> str:
        """The next line.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C was typed.
            NotTextError: it is no text, on a terminal.
            CommandError: it is no text, from elsewhere.
        """
        prompt = PROMPT if self._interactive else ""
        if prompt and not is_terminal(sys.stdout):
            echo(prompt, end="", file=sys.stderr, flush=True)  # stdout is for the answers alone
            prompt = ""
        try:
            line = input(prompt).removeprefix("\ufeff").strip()  # some editors' first character
            line.encode()  # some locales let bytes that are not UTF-8 pass, as surrogates
        except UnicodeError:
            if not self._interactive:
                fail("standard input is not UTF-8 text: convert it first, with iconv say")
            raise NotTextError from None
        except (EOFError, KeyboardInterrupt):
            if self._interactive:
                echo(file=sys.stderr)
            raise
        return line
