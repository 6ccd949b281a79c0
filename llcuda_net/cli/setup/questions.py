"""Asking a person: on stderr, with an answer that a plain Enter gives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from llcuda_net.cli.common import CommandError, Exit, fail
from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo

#: Wrong answers to one question.
_ATTEMPTS = 5


class Questions:
    """Asks, or takes what Enter would give.

    Args:
        asks: whether somebody is there to be asked.
    """

    def __init__(self, *, asks: bool) -> None:
        self.asks = asks

    def yes(self, question: str, default: bool = True) -> bool:
        """Whether they want it."""
        if not self.asks:
            return default
        hint = "[Y/n]" if default else "[y/N]"
        for _ in range(_ATTEMPTS):
            answer = self._line(f"{question} {hint} ").lower()
            if not answer:
                return default
            if answer in ("y", "yes", "n", "no"):
                return answer.startswith("y")
            self._say("please answer y or n")
        raise CommandError("no answer that could be used")

    def text(self, question: str, default: str, check: Callable[[str], object]) -> str:
        """What they type.

        Args:
            check: raises ConfigError for what is wrong, with what to type.
        """
        if not self.asks:
            return default
        for _ in range(_ATTEMPTS):
            answer = self._line(f"{question} [{default}]: ") or default
            try:
                check(answer)
            except ConfigError as error:
                self._say(str(error))
            else:
                return answer
        raise CommandError("no answer that could be used")

    def choice(self, question: str, offers: Sequence[str], default: int) -> int:
        """Which of several they take; numbered from 1 on for them, from 0 on for us."""
        if not self.asks:
            return default
        for number, offer in enumerate(offers, 1):
            self._say(f"  {number}  {offer}")
        for _ in range(_ATTEMPTS):
            answer = self._line(f"{question} [{default + 1}]: ")
            if not answer:
                return default
            if answer.isascii() and answer.isdecimal() and 1 <= int(answer[:9]) <= len(offers):
                return int(answer) - 1
            self._say(f"please type a number from 1 to {len(offers)}")
        raise CommandError("no answer that could be used")

    def _line(self, prompt: str) -> str:
        echo(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            echo(file=sys.stderr)
            fail("nothing was written: the answers ended", Exit.REFUSED)
        return line.strip()

    @staticmethod
    def _say(text: str) -> None:
        echo(text, file=sys.stderr, flush=True)
