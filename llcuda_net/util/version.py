"""The version of the software."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def package_version() -> str:
    """The version of the installed distribution. Reads files, the first time."""
    try:
        return version("llcuda-net")
    except PackageNotFoundError:
        return "0+unknown"
