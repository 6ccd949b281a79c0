"""Upstreams as the operator describes them: a URL, or a table with the URL and more."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from llcuda_net.errors import ConfigError

COMPLETIONS, EMBEDDINGS = "completions", "embeddings"
ROLES = (COMPLETIONS, EMBEDDINGS)
#: What the value of each key of a table must be.
_SAYS = {
    "url": "a URL",
    "name": "1 to 128 characters without spaces",
    "weight": "a number above 0",
    "slots": "a whole number from 1 on",
    "model": "a name",
    "api_key_file": "the name of a file",
    "roles": f"a list of {' and '.join(ROLES)}",
}


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """An upstream.

    Attributes:
        name: its name in reports.
        weight: its share of the work, against the others'.
        slots: how many of its slots are used at most; None: all that it has.
        model: identity of its model; None: found out from the upstream.
        api_key_file: file with its API key; None: the one for all upstreams, if any.
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
        if key not in _SAYS:
            raise ConfigError(f"{where}: there is no key {key!r}; keys are {', '.join(_SAYS)}")
    values = {key: _value(key, value, where) for key, value in values.items()}
    if "url" not in values:
        raise ConfigError(f"{where}: url is missing, such as http://127.0.0.1:8080")
    values.setdefault("name", _named(values["url"]))
    return UpstreamSpec(**values)


def _value(key: str, value: Any, where: str) -> Any:
    import msgspec  # here, since --help does not need it

    try:
        return msgspec.convert(value, _types()[key])
    except msgspec.ValidationError:
        raise ConfigError(f"{where}: {key} must be {_SAYS[key]}, not {value!r}") from None


@functools.cache
def _types() -> dict[str, Any]:
    """The types of a table's values, by key."""
    from msgspec import Meta

    text = Annotated[str, Meta(min_length=1)]
    return {
        "url": text,
        "name": Annotated[str, Meta(pattern=r"\A[^\s\x00-\x1f]{1,128}\Z")],
        "weight": Annotated[float, Meta(gt=0, le=sys.float_info.max)],
        "slots": Annotated[int, Meta(ge=1)],
        "model": text,
        "api_key_file": text,
        "roles": Annotated[frozenset[Literal["completions", "embeddings"]], Meta(min_length=1)],
    }


def _named(url: str) -> str:
    """The name of an upstream that has none: its URL without user and password."""
    return re.sub(r"//.*@", "//", url).rstrip("/")[:128] or url
