"""The commands that pages show: their blocks of code marked `sh`, and what stands before them.

Of a block marked `console`, which shows what commands print, the commands are the lines with `$ `.

A block is run by a test unless a comment in the line before it says otherwise:

    <!-- not run: REASON -->     nobody runs it, and why
    <!-- run by: PATH -->        that test does
    <!-- run: alone -->          without the page's server: it starts its own

Readers of the page see none of these.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<kind>not run|run by|run): (?P<words>[^\n]*?) -->\n)?"
    r"^(?P<indent> *)```(?:sh|console)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One block of commands.

    Attributes:
        page: the file, relative to the repository.
        line: of its first command, from 1.
        code: the commands.
        kind: "" where nothing was said, else "not run", "run by" or "run".
        words: what was said.
    """

    page: str
    line: int
    code: str
    kind: str
    words: str


def blocks(root: Path, page: str) -> list[Block]:
    """Those of one page, from the top."""
    text = (root / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        kind, words = match["kind"] or "", match["words"] or ""
        code = match["code"]
        if "```console" in match[0]:
            typed = [each[2:] for each in code.splitlines() if each.startswith("$ ")]
            code = "".join(f"{each}\n" for each in typed)
        found.append(Block(page, line, code, kind, words))
    return found
