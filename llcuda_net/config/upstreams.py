"""Upstreams as the operator describes them: a URL, or a table with the URL and more."""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from llcuda_net.errors import ConfigError

COMPLETIONS, EMBEDDINGS, RERANK = "completions", "embeddings", "rerank"
ROLES = (COMPLETIONS, EMBEDDINGS, RERANK)
#: What the value of each key of a table must be.
_SAYS = {
    "url": "a URL",
    "name": "1 to 128 characters without spaces",
    "weight": "a number above 0",
    "slots": "a whole number from 1 on",
    "model": "a name",
    "api_key_file": "the name of a file",
    "roles": f"a list of {', '.join(ROLES[:-1])} and {ROLES[-1]}",
    "aliases": "a list of names",
}


#: What may stand in a path without percent-encoding (RFC 3986, section 3.3).
_IN_PATH = "/%:!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """The URL of a server that is asked by HTTP, and the only place that parses one.

    `str` and `repr` leave out user and password, so that they may be logged and stored.

    Attributes:
        scheme: http or https.
        host: a name (in ASCII, as DNS has it) or an address, an IPv6 one without its brackets.
        port: 1 to 65535.
        path: before the path of each request; percent-encoded, without a slash at its end.
        shown: the URL as it was written, without user, password and a slash at its end.
        authorization: the Authorization header for user and password; None where there are none.
    """

    scheme: str
    host: str
    port: int
    path: str
    shown: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str, what: str = "upstream", example: str = "") -> BaseUrl:
        """Parse a URL.

        Args:
            what: names it in errors.
            example: a URL as it might be.

        Raises:
            ConfigError: it is none of a server; the message holds no password.
        """
        try:
            return cls._parse(text)
        except ValueError as error:
            why = f": {error}" if error.args and type(error) is ValueError else ""
            raise ConfigError(
                f"{what} {without_credentials(text)!r} is not a URL such as "
                f"{example or 'http://127.0.0.1:8080'}{why}; correct it"
            ) from None

    @classmethod
    def _parse(cls, text: str) -> BaseUrl:
        if re.search(r"[\x00-\x20\x7f\\]", text):  # urlsplit would drop some of these in silence
            raise ValueError("a space, a backslash or a control character is in it")
        try:
            parts = urllib.parse.urlsplit(text)
        except ValueError:
            raise ValueError("its host is wrong") from None
        if parts.scheme not in ("http", "https"):
            raise ValueError("it must begin with http:// or https://")
        if "?" in text or "#" in text:
            raise ValueError("it must end before ? and #")
        if "@" in parts.path:  # perhaps of a password with a slash, which would be shown
            raise ValueError("write / in a password as %2F, and @ in a path as %40")
        userinfo, _, place = parts.netloc.rpartition("@")
        host, port = _host_and_port(place)
        path = urllib.parse.quote(parts.path.rstrip("/"), safe=_IN_PATH)
        if re.search(r"%(?![0-9A-Fa-f]{2})", path):
            raise ValueError("a % in its path is not followed by two hexadecimal digits")
        return cls(
            parts.scheme,
            host,
            port or (443 if parts.scheme == "https" else 80),
            path,
            f"{parts.scheme}://{place}{parts.path.rstrip('/')}",
            _basic(userinfo) if "@" in parts.netloc else None,
        )

    def __str__(self) -> str:
        return self.shown

    @property
    def secure(self) -> bool:
        """Whether it is asked with TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them: the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def without_credentials(text: str) -> str:
    """What may be a URL, without user and password: all that is before its last @."""
    return re.sub(r"\A([a-zA-Z][\w+.-]*://)?.*@", lambda found: found[1] or "", text, flags=re.S)


def _host_and_port(place: str) -> tuple[str, int | None]:
    """Raises ValueError."""
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::(.*))?", place, flags=re.S)
    if match is None:
        raise ValueError("its host is wrong")
    host, digits = match[1], match[2]
    if digits and ":" in digits:
        raise ValueError("it has two ports, or an IPv6 address without its brackets")
    port = None
    if digits:
        if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:6]) <= 65535):
            raise ValueError("its port must be 1 to 65535")
        port = int(digits)
    if not host:
        raise ValueError("its host is missing")
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError("there is no IPv6 address in its brackets") from None
        if address.scope_id is not None:
            raise ValueError("an IPv6 address with a zone is not supported")
        return str(address), port
    try:
        ascii_host = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ValueError("its host is wrong") from None
    if not re.fullmatch(r"[a-z0-9_.-]+", ascii_host):
        raise ValueError("its host is wrong")
    return ascii_host, port


def _basic(userinfo: str) -> str:
    """The header for `user:password` of a URL, which are percent-encoded. Raises ValueError."""
    user, _, password = (urllib.parse.unquote(part) for part in userinfo.partition(":"))
    if ":" in user:
        raise ValueError("its user holds a colon, which cannot be sent")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """An upstream.

    Attributes:
        url: see BaseUrl; may hold a user and password.
        name: its name in reports.
        weight: its share of the work, against the others'.
        slots: how many of its slots are used at most; None: all that it has.
        model: identity of its model; None: found out from the upstream.
        api_key_file: file with its API key; None: the one for all upstreams, if any.
        roles: what it is used for, as far as it can.
        aliases: other names of its model.
    """

    url: str = field(repr=False)
    name: str
    weight: float = 1.0
    slots: int | None = None
    model: str | None = None
    api_key_file: str | None = None
    roles: frozenset[str] = frozenset(ROLES)
    aliases: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Its URL without user and password, the same however it is written."""
        url = BaseUrl.parse(self.url)
        return f"{url.scheme}://{url.authority.lower()}{url.path}"


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
        return UpstreamSpec(entry, _named(BaseUrl.parse(entry, f"{where}:")))
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must be a URL or a table, not {entry!r}")
    values = {key.replace("-", "_"): value for key, value in entry.items()}
    for key in values:
        if key not in _SAYS:
            raise ConfigError(f"{where}: there is no key {key!r}; keys are {', '.join(_SAYS)}")
    values = {key: _value(key, value, where) for key, value in values.items()}
    if "url" not in values:
        raise ConfigError(f"{where}: url is missing, such as http://127.0.0.1:8080")
    url = BaseUrl.parse(values["url"], f"{where}: url")
    if url.authorization is not None and "api_key_file" in values:
        raise ConfigError(
            f"{where}: url holds a user, and there is an api_key_file; only one of them can be "
            "sent: remove the other"
        )
    values.setdefault("name", _named(url))
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
        "roles": Annotated[
            frozenset[Literal["completions", "embeddings", "rerank"]], Meta(min_length=1)
        ],
        "aliases": tuple[text, ...],
    }


def _named(url: BaseUrl) -> str:
    """The name of an upstream that has none: its URL without user and password."""
    return str(url)[:128]
