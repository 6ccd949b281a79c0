"""What one of several processes knows of the others: its number, and where it is reached alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The option, which no person gives.
OPTION = "--as-process"
_TEXT = re.compile(r"([1-9]\d{0,3})/([1-9]\d{0,3}):(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Part:
    """One of several processes that serve one port.

    Attributes:
        number: from 1 on.
        of: how many there are.
        descriptor: a listening socket on which this one is reached alone.
    """

    number: int
    of: int
    descriptor: int

    def __str__(self) -> str:
        """As the command line has it."""
        return f"{self.number}/{self.of}:{self.descriptor}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """What `str` returned.

        Raises:
            ValueError: it is something else.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is of no process of ours")
        return cls(*map(int, found.groups()))
