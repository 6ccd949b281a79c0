"""Counts calls of our Python functions, and of no others."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import llcuda_net
import llcuda_protocol

#: Where the files are whose functions count; what dataclasses make is in "<string>".
OURS = (*(str(Path(p.__file__ or "").parent) for p in (llcuda_net, llcuda_protocol)), "<string>")

#: By file and name.
Calls = Counter[tuple[str, str]]


@contextlib.contextmanager
def counting(calls: Calls) -> Iterator[None]:
    """Count the calls of this thread."""

    def profile(frame: FrameType, what: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if what == "call" and path.startswith(OURS):
            calls[path, frame.f_code.co_qualname] += 1

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def shown(calls: Calls) -> str:
    """For a message."""
    return "\n".join(f"{n} {Path(path).name}: {name}" for (path, name), n in calls.items())
