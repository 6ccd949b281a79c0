"""The options of `llama-server` that the stand-in has, and the format of its help."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.llama_server.behaviour import Behaviour

_TABLE = Path(__file__).with_name("options.txt")
_LEFT = 40  # columns of the names
_RIGHT = 70  # columns of the text
_TRUE = ("on", "enabled", "true", "1")


class UsageError(Exception):
    """The command line is wrong; says it in the real one's words."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        key: what it is called among the parsed values.
        names: the names that set it.
        no: the names that switch it off.
        value: how the help names its value; empty: it takes none.
        kind: how the value is read, a key of `_KINDS`.
        env: the variable that sets it.
        text: what the help says.
    """

    key: str
    names: tuple[str, ...]
    no: tuple[str, ...]
    value: str
    kind: str
    env: str
    text: str

    def usage(self) -> str:
        """Its lines of the help."""
        first, *more = [*self.names, *self.no]
        left = f"{first}, ".ljust(7) + ", ".join(more) if more else first
        if self.value:
            left += f" {self.value}"
        lines = textwrap.wrap(self.text, _RIGHT)
        if self.env:
            lines.append(f"(env: {self.env})")
        indent = " " * _LEFT
        gap = f"\n{indent}" if len(left) > _LEFT - 3 else " " * (_LEFT - len(left))
        return left + gap + f"\n{indent}".join(lines) + "\n"

    def convert(self, text: str) -> Any:
        """The value that a text says.

        Raises:
            ValueError: with the real one's words for it.
        """
        return _KINDS[self.kind](self, text)


def _int(_: Option, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("stoi") from None


def _float(_: Option, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("stof") from None


def _layers(option: Option, text: str) -> int:
    named = {"auto": -1, "all": -2}
    return named[text] if text in named else _int(option, text)


def _cache_type(option: Option, text: str) -> str:
    allowed = option.text.partition(": ")[2].partition(" (")[0].split(", ")
    if text not in allowed:
        raise ValueError(f"Unsupported cache type: {text}")
    return text


def _flash(_: Option, text: str) -> str:
    if text not in ("on", "off", "auto"):
        raise ValueError(f"error: unknown value for --flash-attn: '{text}'\n")
    return text


def _choice(option: Option, text: str) -> str:
    if text not in re.split(r"[,|]", option.value[1:-1]):
        raise ValueError("invalid value")
    return text


_KINDS: dict[str, Callable[[Option, str], Any]] = {
    "str": lambda _, text: text,
    "int": _int,
    "float": _float,
    "layers": _layers,
    "cache": _cache_type,
    "flash": _flash,
    "choice": _choice,
}


def of_build(told: Behaviour) -> dict[str, list[Option]]:
    """The options that this build has, by the headings of the help."""
    found: dict[str, list[Option]] = {}
    section = ""
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = []
        elif line and not line.startswith("#"):
            option = _option(line)
            if not _named(option, told.without):
                plain = _named(option, told.bare)
                found[section].append(replace(option, value="") if plain else option)
    return found


def _option(line: str) -> Option:
    key, left, kind, env, text = line.split(" | ", 4)
    words = left.split()
    variable = env[1:] if env.startswith("=") else f"LLAMA_ARG_{env}"
    return Option(
        key,
        names=tuple(word for word in words if word.startswith("-")),
        no=tuple(word[1:] for word in words if word.startswith("!")),
        value="" if kind == "-" else words[-1],
        kind=kind,
        env="" if env == "-" else variable,
        text=text,
    )


def _named(option: Option, names: Sequence[str]) -> bool:
    return any(name in names for name in option.names)


def usage(told: Behaviour) -> str:
    """What --help prints."""
    return "\n\n".join(
        f"----- {title} -----\n\n{''.join(one.usage() for one in options)}"
        for title, options in of_build(told).items()
    )


def parse(arguments: Sequence[str], told: Behaviour, environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment and then the command line set, by the keys of the options.

    Raises:
        UsageError: in the words of the real one.
    """
    options = [one for section in of_build(told).values() for one in section]
    found = dict(_of_environment(options, environ))
    by_name = {name: (one, True) for one in options for name in one.names}
    by_name |= {name: (one, False) for one in options for name in one.no}
    rest = iter(arguments)
    for argument in rest:
        name = argument.replace("_", "-") if argument.startswith("--") else argument
        if name not in by_name:
            raise UsageError(f"error: invalid argument: {name}")
        option, positive = by_name[name]
        if not option.value:
            found[option.key] = positive
            continue
        try:
            text = next(rest, None)
            if text is None:
                raise ValueError("expected value for argument")
            found[option.key] = option.convert(text)
        except ValueError as error:
            raise UsageError(
                f'error while handling argument "{name}": {error}\n\n'
                f"usage:\n{option.usage()}\n\nto show complete usage, run with -h"
            ) from None
    return found


def _of_environment(
    options: Sequence[Option], environ: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    for option in options:
        text = environ.get(option.env) if option.env else None
        if text is None:
            continue
        try:
            yield option.key, option.convert(text) if option.value else text in _TRUE
        except ValueError as error:
            raise UsageError(
                f'error while handling environment variable "{option.env}": {error}\n\n'
            ) from None
