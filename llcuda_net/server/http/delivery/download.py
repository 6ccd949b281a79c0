"""An answer that a browser saves as a file: its name, and what of Markdown its makers share."""

from __future__ import annotations

import re
from urllib.parse import quote

#: Characters of a file's name, without its suffix.
_LONGEST = 60
_NO_WORD = re.compile(r"[\W_]+")
_NO_ASCII_WORD = re.compile(r"[^a-z0-9]+")
_TICKS = re.compile(r"`+")


def headers_of(title: str, suffix: str) -> dict[str, str]:
    """The header fields of a download.

    A title is anybody's text. Of it the name has letters and digits, and hyphens for the rest: no
    folder, no suffix of its own, no character that turns the direction of a line.

    Args:
        title: what it is about; it may be empty.
        suffix: of the file, with its dot.
    """
    name = _shortened(_NO_WORD, title.casefold())
    plain = _shortened(_NO_ASCII_WORD, title.lower()) or "answer"
    disposition = f'attachment; filename="{plain}{suffix}"'
    if name and name != plain:
        disposition += f"; filename*=UTF-8''{quote(name + suffix, safe='')}"
    return {
        "Content-Disposition": disposition,
        # It has what a model wrote: no browser is to run it here.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }


def fenced(text: str, language: str = "") -> str:
    """A block of code in Markdown, with a fence that the text does not end."""
    fence = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    end = "" if text.endswith("\n") or not text else "\n"
    return f"{fence}{language}\n{text}{end}{fence}"


def quoted(text: str) -> str:
    """A quote in Markdown."""
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _shortened(between: re.Pattern[str], title: str) -> str:
    words = between.sub("-", title[: 8 * _LONGEST]).strip("-")
    if len(words) <= _LONGEST:
        return words
    # At the end of a word, where there is one.
    return words[: _LONGEST + 1].rpartition("-")[0] or words[:_LONGEST]
