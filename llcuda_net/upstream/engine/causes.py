"""Why a load failed, and what of llama.cpp's log may be kept: both engines write the same one."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Printed last when a model could not be loaded.
LAST_OF_A_FAILURE = "exiting due to"

#: What native code prints when it aborts.
_ABORT = re.compile(
    r"GGML_ASSERT\(|GGML_ABORT|terminate called after throwing|Fatal Python error: "
)
_STAMPED = re.compile(r"[\d.]+ [A-Z] ")
#: A grammar or schema that it does not take; behind these words it may quote what was asked.
_REFUSED = re.compile(
    r"[\d.]+ E (llg error|failed to parse grammar|grammar does not contain a 'root' symbol"
    r"|unsupported grammar)"
)
_ERROR = re.compile(r"[\d.]+ E ")
_STAMP = re.compile(r"^[\d.]+ E (?:(?:srv|cmn|slot) +[^:]*: |\w+: )")
_VAGUE = re.compile(
    r"failed to load model\b(?! from \S+: )|exiting due to|encountered an error while trying to fit"
)
_LEVELS = re.compile(r"^(?:error loading model(?: \w+)?: |\[mtmd\] |error: )+")
#: An option that a llama-server does not take, or whose value it does not. Without a stamp: it is
#: printed before there is a log.
_ARGUMENT = re.compile(r"^error(?: while (?:handling|parsing) argument \"([^\"]+)\")?: (.+)$")
#: The dynamic linker's, or the shell's: `NAME: error while loading shared libraries: …`.
_LINKER = re.compile(r"^\S+: (?:\S+: )?(error while loading shared libraries: .+|version `.+)$")


def may_be_kept(line: str, *, serving: bool) -> bool:
    """Once it serves, what has no stamp may be a client's text: llama.cpp prints grammars raw."""
    return not serving or bool(_STAMPED.match(line) or _ABORT.search(line))


def refused_constraint(line: str) -> tuple[str, str] | None:
    """Of a line about a grammar that is not taken: what may be kept of it, and the reason."""
    found = _REFUSED.match(line)
    return None if found is None else (found[0], found[1])


def is_error(line: str) -> bool:
    """Whether llama.cpp calls it an error."""
    return _ERROR.match(line) is not None


def find_cause(lines: Iterable[str]) -> str:
    """The line of llama.cpp's log that says why a load failed, or an empty string.

    It reports one failure at every level that it passes, the first being the one that knows.
    """
    for line in lines:
        text, stamped = _STAMP.subn("", line)
        if stamped:
            if not _VAGUE.search(text):
                return _LEVELS.sub("", text)
        elif found := _ARGUMENT.match(line):
            why = found[2].removeprefix("error: ")
            return f"it does not take an option: {found[1]}: {why}" if found[1] else why
        elif found := _LINKER.match(line):
            return found[1]
    return ""


def find_abort(lines: Iterable[str]) -> str:
    """The line that native code printed when it aborted, or an empty string."""
    return next((line for line in lines if _ABORT.search(line)), "")
