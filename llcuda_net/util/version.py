"""The version of the software."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("llcuda-net")
    except PackageNotFoundError:
        return "0+unknown"
