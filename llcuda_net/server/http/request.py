"""One HTTP request as handlers see it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from llcuda_net.config.users import User
from llcuda_net.server.http.errors import HttpError

_SECONDS = re.compile(r"\A[0-9]{1,12}(\.[0-9]{0,12})?\Z")


class Headers:
    """Header fields by name, in any case; values are text as Latin-1, which takes any byte.

    Args:
        items: names in lower case, and values.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._items = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in items]

    def __repr__(self) -> str:
        return f"<Headers {', '.join(name for name, _ in self._items)}>"  # values may be secrets

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._items))

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> str | None:
        """The value of a field, the first where there are several; None where there is none."""
        wanted = name.lower()
        return next((value for key, value in self._items if key == wanted), None)

    def all(self, name: str) -> list[str]:
        """The values of all fields of this name, in their order."""
        wanted = name.lower()
        return [value for key, value in self._items if key == wanted]


@dataclass(slots=True)
class HttpRequest:
    """A whole request.

    Attributes:
        method: in upper case; for HEAD the handler of GET is asked.
        path: percent-decoded, without the query.
        query: the last value of each name, percent-decoded.
        headers: all of them.
        body: as it came; empty once the exchange has dropped it.
        user: whose it is.
        id: names it in the log and in the answer's x-request-id.
        parameters: of the route's pattern: {"id": ...}.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Headers
    body: bytes
    user: User
    id: str
    parameters: dict[str, str] = field(default_factory=dict)


def seconds_of(text: str) -> float | None:
    """A number of seconds in a header; None: it is none."""
    return float(text) if _SECONDS.match(text) else None


def locate(target: str, request: HttpRequest) -> tuple[str, str]:
    """Set the path and the query of a request by its target.

    Returns:
        The host and port that it is for, and the path as it came.

    Raises:
        HttpError: the target is wrong.
    """
    authority = request.headers.get("host") or ""
    if not target.startswith("/") and target != "*":
        scheme, _, rest = target.partition("://")
        if scheme.lower() not in ("http", "https") or not rest:
            raise HttpError(400, "the target of a request is a path, or an http URL")
        # It counts, and Host does not: RFC 9112, section 3.2.2.
        authority, _, target = rest.partition("/")
        target = f"/{target}"
    path, _, query = target.partition("#")[0].partition("?")
    try:
        request.path = unquote(path, errors="strict")
        request.query = dict(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise HttpError(400, "the target is not percent-encoded UTF-8") from None
    return authority, path
