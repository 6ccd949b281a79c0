"""Who may use a server, and how much of it: the token file.

A line is `TOKEN [key=value ...]`; a word that begins with `#` begins a comment. Errors name line
and key, and never show what stands there: any word may be a token, or a part of one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

from llcuda_net.errors import ConfigError


class Priority(IntEnum):
    """Classes of requests: none of a class begins while one of a better class could."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


#: Each by the name that files and requests have for it, best first.
PRIORITIES = {priority.name.lower(): priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class User:
    """One user, and their limits.

    Attributes:
        name: what they are called; all who have no name are one user, "".
        weight: their share of the slots against others'.
        admin: sees and cancels everybody's.
        priority: the best class they may ask for.
        max_running: how many of their requests may run at once.
        max_queued: how many of their requests may wait.
        tokens_per_minute: how many tokens, read and made, they may use.
    """

    name: str = ""
    weight: float = 1.0
    admin: bool = False
    priority: Priority = Priority.HIGH
    max_running: int | None = None
    max_queued: int | None = None
    tokens_per_minute: float | None = None


#: Everybody, where there are no tokens.
ANONYMOUS = User(admin=True)


def view_of(user: User) -> str | None:
    """Whose generations a user may see, as an owner in look-ups: None stands for everybody's."""
    return None if user.admin else user.name


_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_WHOLE = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Users:
    """The users by their tokens. One without a file lets everybody in, as ANONYMOUS."""

    def __init__(self) -> None:
        #: Hashes of the tokens, so that neither a token nor its length is to be had from here.
        self._known: tuple[tuple[bytes, User], ...] | None = None

    @classmethod
    def parse(cls, text: str, where: str = "the token file") -> Users:
        """The users of a token file.

        Args:
            where: names the file in errors.

        Raises:
            ConfigError: a line is wrong, or there is no token.
        """
        users = cls()
        users._known = _parsed(text, where)
        return users

    def reload(self, text: str, where: str = "the token file") -> None:
        """Take another file's users instead.

        Raises:
            ConfigError: as `parse`; the users are as before.
        """
        self._known = _parsed(text, where)

    def find(self, token: str | None) -> User | None:
        """Whose token this is; None: nobody's. Takes as long whatever the token is."""
        if self._known is None:
            return ANONYMOUS
        given, found = _hash(token or ""), None
        for known, user in self._known:
            if hmac.compare_digest(known, given):
                found = user
        return found

    def named(self, name: str) -> User:
        """The user of this name; one without any limit where there is none: not any more, say."""
        if self._known is None and not name:
            return ANONYMOUS
        return next((user for _, user in self._known or () if user.name == name), User(name))


def _hash(token: str) -> bytes:
    # What came over the network need not be well-formed text.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    token: bytes
    user: User
    limited: bool  # says more than name and role


def _parsed(text: str, where: str) -> tuple[tuple[bytes, User], ...]:
    lines = list(_lines(text, where))
    if not lines:
        raise ConfigError(f"{where} holds no token; one a line")
    by_token: dict[bytes, _Line] = {}
    by_name: dict[str, _Line] = {}
    for line in lines:
        first = by_token.setdefault(line.token, line)
        if first is not line:
            raise _error(where, line.number, f"has the token of line {first.number}")
        before = by_name.setdefault(line.user.name, line)
        _check_same(where, before, line)
        if line.limited and not before.limited:
            by_name[line.user.name] = line
    return tuple((line.token, by_name[line.user.name].user) for line in lines)


def _check_same(where: str, one: _Line, other: _Line) -> None:
    """Lines of one user: limits stand in one of them, or are the same; roles always are.

    A role is never taken over: what a token may do must be seen beside it.
    """
    user = f"the user {one.user.name!r}" if one.user.name else "the user without a name"
    if one.user.admin != other.user.admin:
        raise _error(where, other.number, f"role: {user} has another one in line {one.number}")
    if not (one.limited and other.limited):
        return
    for key, (field, _, _) in _KEYS.items():
        if getattr(one.user, field) != getattr(other.user, field):
            raise _error(
                where,
                other.number,
                f"{key}: {user} has another one in line {one.number}; give limits in one of them",
            )


def _lines(text: str, where: str) -> Iterator[_Line]:
    for number, content in enumerate(text.split("\n"), 1):
        words = _words(content)
        if not words:
            continue
        token, *rest = words
        key, equals, _ = token.partition("=")
        if equals and key in _KEYS:
            raise _error(where, number, "begins with a key; the token comes first")
        given: dict[str, Any] = {}
        for place, word in enumerate(rest, 1):
            key, equals, value = word.partition("=")
            if not equals or key not in _KEYS:
                keys = ", ".join(_KEYS)
                raise _error(
                    where, number, f"word {place} after the token is no KEY=VALUE; keys are {keys}"
                )
            field, says, convert = _KEYS[key]
            if field in given:
                raise _error(where, number, f"{key} stands there twice")
            try:
                given[field] = convert(value)
            except ValueError:
                raise _error(where, number, f"{key} must be {says}") from None
        user = replace(User(), **given)
        yield _Line(number, _hash(token), user, bool(given.keys() - {"name", "admin"}))


def _words(content: str) -> list[str]:
    words = content.split()
    for place, word in enumerate(words):
        if word.startswith("#"):
            return words[:place]
    return words


def _error(where: str, number: int, what: str) -> ConfigError:
    return ConfigError(f"{where}, line {number}: {what}")


# -- values ---------------------------------------------------------------------------------------


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError
    return value


def _above_nothing(value: str) -> float:
    # Not float() alone: it takes "inf", "1_0" and digits of other scripts.
    if not _DECIMAL.fullmatch(value) or not (number := float(value)) > 0:
        raise ValueError
    return number


def _whole(value: str) -> int:
    if not _WHOLE.fullmatch(value):
        raise ValueError
    return int(value)


def _at_least_one(value: str) -> int:
    if (number := _whole(value)) < 1:
        raise ValueError
    return number


def _one_of(choices: dict[str, Any]) -> Callable[[str], Any]:
    def convert(value: str) -> Any:
        if value not in choices:
            raise ValueError
        return choices[value]

    return convert


_POSITIVE = "a number above 0, such as 1.5"
#: A key's attribute of a user, what its values are, and what makes the one of the other.
_KEYS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "name": ("name", "1 to 64 of the letters A-Z and a-z, digits, and . _ @ -", _name),
    "weight": ("weight", _POSITIVE, _above_nothing),
    "priority": ("priority", " or ".join(PRIORITIES), _one_of(PRIORITIES)),
    "concurrent": ("max_running", "a whole number from 1 on", _at_least_one),
    "queued": ("max_queued", "a whole number from 0 on", _whole),
    "tokens_per_minute": ("tokens_per_minute", _POSITIVE, _above_nothing),
    "role": ("admin", "user or admin", _one_of({"user": False, "admin": True})),
}
assert {field for field, _, _ in _KEYS.values()} == {field.name for field in fields(User)}
