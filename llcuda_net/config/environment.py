"""LLCUDA_* variables that nothing reads: mostly a name with a typing error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

PREFIX = "LLCUDA_"
#: Read by command lines, besides one for each setting of the server.
OTHERS = ("LLCUDA_CONFIG", "LLCUDA_SERVER", "LLCUDA_TOKEN", "LLCUDA_DIRECT_KEY")
#: How alike two names are, from 0 to 1, of which one is meant: a letter or two differ.
_ALIKE = 0.9


def unknown(environment: Mapping[str, str], settings: Iterable[str]) -> dict[str, str | None]:
    """The variables that nothing reads, each with the one that is meant, where there is one.

    Args:
        settings: names of the server's settings.
    """
    known = [*OTHERS, *(PREFIX + name.upper() for name in settings)]
    found = {}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and environment[name]:
            near = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
            found[name] = near[0] if near else None
    return found


def told(name: str, near: str | None) -> str:
    """The line about one of them."""
    hint = f": did you mean {near}?" if near else "; llcuda-server --help has all settings"
    return f"there is no variable {name if name.isprintable() else ascii(name)}{hint}"
