"""The token file: which token belongs to which user.

A line is `TOKEN [key=value ...]`; a word that begins with `#` begins a comment. Errors name line
and key, and never show what stands there: any word may be a token, or a part of one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llcuda_net.config.sizes import SAYS, parse_size
from llcuda_net.config.users import ANONYMOUS, PRIORITIES, User, forwarded, forwarder_of
from llcuda_net.errors import ConfigError

# Digits only, checked before they are a number: no exponents, signs or digits of other scripts.
_Whole = Annotated[str, Meta(pattern=r"\A[0-9]{1,9}\Z")]
_Decimal = Annotated[str, Meta(pattern=r"\A[0-9]{1,9}(\.[0-9]{1,9})?\Z")]
_Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._@-]{1,64}\Z")]
#: Characters of a token that is not warned of: 16 of base64 are 96 bits.
LEAST = 16
_POSITIVE = "a number above 0, such as 1.5"


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of a line.

    Attributes:
        field: the attribute of a user.
        says: what the value must be.
        types: what it is converted to, one after the other.
        choices: what the value stands for, where it is one of these words.
        parse: makes the value; raises ValueError where it cannot.
    """

    field: str
    says: str
    types: tuple[Any, ...] = ()
    choices: dict[str, Any] | None = None
    parse: Callable[[str], Any] | None = None

    def convert(self, value: str) -> Any:
        """The value; raises ValueError where it is none."""
        if self.choices is not None:
            if value not in self.choices:
                raise ValueError
            return self.choices[value]
        if self.parse is not None:
            return self.parse(value)
        found: Any = value
        for type_ in self.types:
            found = msgspec.convert(found, type_, strict=False)
        return found


_KEYS = {
    "name": _Key("name", "1 to 64 of the letters A-Z and a-z, digits, and . _ @ -", (_Name,)),
    "weight": _Key("weight", _POSITIVE, (_Decimal, Annotated[float, Meta(gt=0)])),
    "priority": _Key("priority", " or ".join(PRIORITIES), choices=PRIORITIES),
    "concurrent": _Key(
        "max_running", "a whole number from 1 on", (_Whole, Annotated[int, Meta(ge=1)])
    ),
    "queued": _Key("max_queued", "a whole number from 0 on", (_Whole, int)),
    "tokens_per_minute": _Key(
        "tokens_per_minute", _POSITIVE, (_Decimal, Annotated[float, Meta(gt=0)])
    ),
    "files": _Key("max_file_bytes", SAYS, parse=parse_size),
    "forwards": _Key("forwards", "0 or 1", choices={"0": False, "1": True}),
    "role": _Key("admin", "user or admin", choices={"user": False, "admin": True}),
}
assert {key.field for key in _KEYS.values()} == {field.name for field in fields(User)}


class Users:
    """The users by their tokens. One without a file lets everybody in, as ANONYMOUS.

    Attributes:
        short: the lines whose tokens have fewer than LEAST characters: somebody may guess them.
    """

    def __init__(self) -> None:
        #: Hashes of the tokens, so that neither a token nor its length is to be had from here.
        self._known: tuple[tuple[bytes, User], ...] | None = None
        self.short: tuple[int, ...] = ()

    def __repr__(self) -> str:
        if self._known is None:
            return "<Users: everybody>"
        names = {user.name for _, user in self._known}
        return f"<Users {len(self._known)} tokens of {len(names)} users>"

    @classmethod
    def parse(cls, text: str, where: str = "the token file") -> Users:
        """The users of a token file.

        Args:
            where: names the file in errors.

        Raises:
            ConfigError: a line is wrong, or there is no token.
        """
        users = cls()
        users.reload(text, where)
        return users

    def reload(self, text: str, where: str = "the token file") -> None:
        """Replace the users by those of another file.

        Raises:
            ConfigError: as `parse`; the users are as before.
        """
        lines = list(_lines(text, where))
        self._known = _joined(lines, where)
        self.short = tuple(line.number for line in lines if line.short)

    @property
    def required(self) -> bool:
        """Whether a token is needed."""
        return self._known is not None

    def find(self, token: str | None) -> User | None:
        """The user of a token; None where it is nobody's. Takes the same time for any token."""
        if self._known is None:
            return ANONYMOUS
        given, found = hash_of(token or ""), None
        for known, user in self._known:
            if hmac.compare_digest(known, given):
                found = user
        return found

    def bound(self, name: str, fits: Callable[[bytes], bool]) -> User | None:
        """The user of a name, by one of their tokens that fits; None: there is none any more.

        Args:
            fits: is asked about the hash of each, see `hash_of`.
        """
        known = self._known or ()
        return next((user for token, user in known if user.name == name and fits(token)), None)

    def named(self, name: str) -> User:
        """The user of a name; one without limits where there is none, or none any more."""
        if self._known is None and not name:
            return ANONYMOUS
        by_other = forwarder_of(name)
        if by_other is not None:
            return forwarded(self.named(by_other[0]), by_other[1])
        return next((user for _, user in self._known or () if user.name == name), User(name))

    def known(self, name: str) -> User | None:
        """The user of a name; None: there is none, or none any more."""
        if self._known is None:
            return None if name else ANONYMOUS
        by_other = forwarder_of(name)
        if by_other is not None:
            before = self.known(by_other[0])
            return None if before is None else forwarded(before, by_other[1])
        return next((user for _, user in self._known if user.name == name), None)


def hash_of(token: str) -> bytes:
    """The hash by which a token is known."""
    # What came over the network need not be well-formed text.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    token: bytes
    short: bool  # the token is
    user: User
    limited: bool  # says more than name, and what the token may do


def _joined(lines: list[_Line], where: str) -> tuple[tuple[bytes, User], ...]:
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
    return tuple(
        (line.token, replace(by_name[line.user.name].user, forwards=line.user.forwards))
        for line in lines
    )


def _check_same(where: str, one: _Line, other: _Line) -> None:
    """Lines of one user: limits stand in one of them, or are the same; roles always are.

    What a token may do is never inherited, its role and forwarding: it must stand beside it.
    """
    user = f"the user {one.user.name!r}" if one.user.name else "the user without a name"
    if one.user.admin != other.user.admin:
        raise _error(where, other.number, f"role: {user} has another one in line {one.number}")
    if not (one.limited and other.limited):
        return
    for name, key in _KEYS.items():
        if name != "forwards" and getattr(one.user, key.field) != getattr(other.user, key.field):
            raise _error(
                where,
                other.number,
                f"{name}: {user} has another one in line {one.number}; give limits in one of them",
            )


def _lines(text: str, where: str) -> Iterator[_Line]:
    for number, content in enumerate(text.split("\n"), 1):
        words = _words(content)
        if not words:
            continue
        token, *rest = words
        name, equals, _ = token.partition("=")
        if equals and name in _KEYS:
            raise _error(where, number, "begins with a key; the token comes first")
        given: dict[str, Any] = {}
        for place, word in enumerate(rest, 1):
            name, equals, value = word.partition("=")
            if not equals or name not in _KEYS:
                keys = ", ".join(_KEYS)
                raise _error(
                    where, number, f"word {place} after the token is no KEY=VALUE; keys are {keys}"
                )
            key = _KEYS[name]
            if key.field in given:
                raise _error(where, number, f"{name} stands there twice")
            try:
                given[key.field] = key.convert(value)
            except ValueError:  # msgspec's errors are
                raise _error(where, number, f"{name} must be {key.says}") from None
        user = replace(User(), **given)
        limited = bool(given.keys() - {"name", "admin", "forwards"})
        yield _Line(number, hash_of(token), len(token) < LEAST, user, limited)


def _words(content: str) -> list[str]:
    words = content.split()
    for place, word in enumerate(words):
        if word.startswith("#"):
            return words[:place]
    return words


def _error(where: str, number: int, what: str) -> ConfigError:
    return ConfigError(f"{where}, line {number}: {what}")
