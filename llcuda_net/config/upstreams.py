"""Upstreams as the operator describes them: a URL, or a table with more to say of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llcuda_net.errors import ConfigError

COMPLETIONS, EMBEDDINGS = "completions", "embeddings"
ROLES = (COMPLETIONS, EMBEDDINGS)
_NAME = re.compile(r"[^\s\x00-\x1f]{1,128}")


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """An upstream.

    Attributes:
        name: what it is called in reports.
        weight: how much of the work it gets, against the others.
        slots: at most so many are used; None: all that it has.
        model: identity of its model; None: find out.
        api_key_file: with the key that it wants; None: none, or the one for all.
        roles: what it is used for.
    """

    url: str
    name: str
    weight: float = 1.0
    slots: int | None = None
    model: str | None = None
    api_key_file: str | None = None
    roles: frozenset[str] = frozenset(ROLES)


def parse(value: Any, where: str) -> tuple[UpstreamSpec, ...]:
    """The upstreams of a setting: a URL, or several by commas; or a list of URLs and tables.

    Args:
        where: names the setting in errors.

    Raises:
        ConfigError: they are wrong.
    """
    if isinstance(value, str):
        value = [url for part in value.split(",") if (url := part.strip())]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a URL, or a list of URLs or tables, not {value!r}")
    found = tuple(_one(entry, f"{where}, number {n}") for n, entry in enumerate(value, 1))
    names = [spec.name for spec in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two upstreams are called {name}; give them other names")
    return found


def _one(entry: Any, where: str) -> UpstreamSpec:
    if isinstance(entry, str):
        return UpstreamSpec(entry, _named(entry))
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must be a URL or a table, not {entry!r}")
    values = {key.replace("-", "_"): value for key, value in entry.items()}
    for key in values:
        if key not in _CHECKS:
            raise ConfigError(f"{where}: there is no key {key!r}; keys are {', '.join(_CHECKS)}")
    for key, value in values.items():
        says, good = _CHECKS[key]
        if not good(value):
            raise ConfigError(f"{where}: {key} must be {says}, not {value!r}")
    if "url" not in values:
        raise ConfigError(f"{where}: url is missing, such as http://127.0.0.1:8080")
    values.setdefault("name", _named(values["url"]))
    if "roles" in values:
        values["roles"] = frozenset(values["roles"])
    return UpstreamSpec(**values)


def _named(url: str) -> str:
    """A URL's own name: without user and password, which nobody else need see."""
    return re.sub(r"//.*@", "//", url).rstrip("/")[:128] or url


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


#: The keys of a table: what a value may be, and whether one is that.
_CHECKS: dict[str, tuple[str, Any]] = {
    "url": ("a URL", _text),
    "name": (
        "1 to 128 characters without spaces",
        lambda v: isinstance(v, str) and bool(_NAME.fullmatch(v)),
    ),
    "weight": (
        "a number above 0",
        lambda v: type(v) in (int, float) and 0 < v < float("inf"),
    ),
    "slots": ("a whole number from 1 on", lambda v: type(v) is int and v >= 1),
    "model": ("a name", _text),
    "api_key_file": ("the name of a file", _text),
    "roles": (
        f"a list of {' and '.join(ROLES)}",
        lambda v: isinstance(v, list) and bool(v) and all(one in ROLES for one in v),
    ),
}
