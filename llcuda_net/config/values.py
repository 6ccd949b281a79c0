"""Values of settings: from text, or from a value of the config file, to what a setting holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from llcuda_net.config.sizes import SAYS, parse_size
from llcuda_net.errors import ConfigError

_KINDS = {bool: "true or false", str: "a string", int: "a whole number", float: "a number"}
_STORES = ("sqlite", "none")
_LONGEST_NAME, _HIGHEST_PORT = 100, 65_535
_WORDS = {"yes": True, "no": False}


def convert(metadata: Mapping[str, Any], value: Any, where: str) -> Any:
    """The value of a setting, given as text or as a value of the config file.

    Raises:
        ConfigError: it is none; names `where` it came from, and what it may be.
    """
    import msgspec  # here, since --help does not need it

    kind, low, high = metadata["kind"], metadata["low"], metadata["high"]
    steps: list[tuple[Any, str]] = [(kind, f"{_KINDS[kind]}, not {value!r}")]
    if metadata["choices"]:
        names = ", ".join(metadata["choices"])
        steps.append((Literal[metadata["choices"]], f"one of {names}, not {value!r}"))
    if kind in (int, float):
        at_least, at_most = msgspec.Meta(ge=low), msgspec.Meta(le=high)
        unit = " bytes" if metadata["size"] else ""
        least = low if metadata["size"] else f"{low:g}"
        steps += [
            (_bounded(kind, at_least), f"at least {least}{unit}, not {value}"),
            (_bounded(kind, at_most), f"at most {high}{unit}, not {value}"),
        ]
    found = value
    if metadata["size"]:
        steps[0] = (kind, f"{SAYS}, not {value!r}")
        if isinstance(value, str):
            try:
                value = found = parse_size(value)
            except ValueError as error:
                raise ConfigError(f"{where} {error}") from None
    if isinstance(value, str) and kind is not str:
        found = value.strip()
        if kind is bool:
            found = _WORDS.get(found.lower(), found)
    for type_, says in steps:
        try:
            # Only text is read leniently: a TOML value has a type of its own.
            found = msgspec.convert(found, type_, strict=not isinstance(found, str))
        except msgspec.ValidationError:
            raise ConfigError(f"{where} must be {says}") from None
    return found


def parse_store(value: Any, where: str) -> str:
    """Where results are kept: a word, or the URL of a database.

    Raises:
        ConfigError: it is neither. The message does not repeat it: there may be a password in it.
    """
    if not isinstance(value, str) or not (value in _STORES or is_database(value)):
        raise ConfigError(
            f"{where} must be sqlite, none or the URL of a database (postgresql://user@host/name)"
        )
    return value


def parse_name(value: Any, where: str) -> str:
    """What a server is called.

    Raises:
        ConfigError: it cannot be called so.
    """
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _LONGEST_NAME:
        raise ConfigError(
            f"{where} must be a name of 1 to {_LONGEST_NAME} characters, not {value!r}"
        )
    return value


def parse_place(value: Any, where: str) -> str:
    """HOST:PORT, where others reach this server.

    Raises:
        ConfigError: it is none.
    """
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host.startswith("[") == host.endswith("]") and (":" not in host or host[0] == "[")
    good = bare and port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _HIGHEST_PORT
    if not (good and host.strip("[]") and not any(one.isspace() or one == "/" for one in host)):
        raise ConfigError(
            f"{where} must be HOST:PORT, for example 10.0.0.5:9000 or [fd00::5]:9000, not {value!r}"
        )
    return str(value)


def parse_gpus(value: Any, where: str) -> str:
    """Which GPUs: "all", "none", or numbers with commas between them, rising.

    Raises:
        ConfigError: it is none of these.
    """
    if value in ("all", "none"):
        return str(value)
    parts = value.split(",") if isinstance(value, str) else [""]
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise ConfigError(
            f"{where} must be all, none or numbers of GPUs such as 0,1, not {value!r}"
        )
    return ",".join(map(str, sorted({int(part[:6]) for part in parts})))


def is_database(store: object) -> bool:
    """Whether a place for results is a database of several servers."""
    return isinstance(store, str) and store.startswith(("postgresql://", "postgres://"))


def several(value: Any, where: str) -> tuple[str, ...]:
    """Values of an option that may be given several times; in text, with commas between them.

    Raises:
        ConfigError: it is neither a string nor a list of them.
    """
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{where} must be a list of strings, not {value!r}")
    return tuple(one.strip() for one in given if one.strip())


def _bounded(kind: type, bound: Any) -> Any:
    return Annotated[int, bound] if kind is int else Annotated[float, bound]
