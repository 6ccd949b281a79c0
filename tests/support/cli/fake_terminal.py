"""A terminal in memory, and text that would command a real one."""

from __future__ import annotations

import io

#: Sets the title, clears the screen (by ESC and by C1), goes back to the line's start, turns the
#: reading direction.
EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b2J\r\x08\u202e\x7f"


def is_obeyed(character: str) -> bool:
    """Whether a terminal would do anything but show it; newline and tab are meant."""
    code = ord(character)
    return character not in "\n\t" and (
        code < 32
        or 127 <= code < 160
        or 0x2028 <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code <= 0xDFFF
    )


class FakeTerminal(io.TextIOWrapper):
    """A text stream that says it is a terminal, and remembers what was written."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, "utf-8", errors="surrogatepass", newline="\n")

    def isatty(self) -> bool:
        """It is."""
        return True

    @property
    def text(self) -> str:
        """All that was written."""
        self.flush()
        return self.bytes.getvalue().decode("utf-8", "surrogatepass")
