"""What one of several processes knows of the others: its number, and where it is reached alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The option, which no person gives.
OPTION = "--as-process"
_TEXT = re.compile(r"([1-9]\d{0,3})/([1-9]\d{0,3}):(.*):([1-9]\d{0,4})")


@dataclass(frozen=True, slots=True)
class Part:
    """One of several processes that serve one port.

    Attributes:
        number: from 1 on.
        of: how many there are.
        host, port: where this one listens alone, beside the port that all share.
    """

    number: int
    of: int
    host: str
    port: int

    def __str__(self) -> str:
        """As the command line has it."""
        return f"{self.number}/{self.of}:{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """What `str` returned.

        Raises:
            ValueError: it is something else.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is of no process of ours")
        number, of, host, port = found.groups()
        return cls(int(number), int(of), host, int(port))
