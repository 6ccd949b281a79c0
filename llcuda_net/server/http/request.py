"""One HTTP request as handlers see it; lists in pages, as OpenAI's API has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from llcuda_net.config.users import User
from llcuda_net.errors import InvalidRequest
from llcuda_net.server.http.errors import HttpError

#: The parameters of a list in pages.
PAGING = ("limit", "after", "order")
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
        authority: the host and port that it is for, by its target or Host.
        local: the address of this machine at which it came in; empty where there is none.
        tls: it came over TLS.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Headers
    body: bytes
    user: User
    id: str
    parameters: dict[str, str] = field(default_factory=dict)
    authority: str = ""
    local: str = ""
    tls: bool = False


def seconds_of(text: str) -> float | None:
    """A number of seconds in a header; None: it is none."""
    return float(text) if _SECONDS.match(text) else None


def locate(target: str, request: HttpRequest) -> str:
    """Set the path, the query and the authority of a request by its target.

    Returns:
        The path as it came.

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
    request.authority = authority
    return path


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What a request says of its page.

    Attributes:
        limit: entries, at most.
        after: the id of the entry behind which the page begins; None: it is the first one.
        ascending: oldest first; else newest first.
    """

    limit: int
    after: str | None
    ascending: bool

    @classmethod
    def of(cls, query: Mapping[str, str], *, default: int, most: int) -> PageQuery:
        """Of the parameters of a request's query.

        Args:
            default: entries of a page where the query does not say.
            most: entries of the largest page.

        Raises:
            InvalidRequest: one of them is wrong.
        """
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest(f"order is asc or desc, not {order[:60]!r}")
        limit = whole_number(query, "limit", default, most)
        return cls(limit, query.get("after") or None, order == "asc")


def check_names(query: Iterable[str], known: Collection[str]) -> None:
    """Refuse a query with parameters that nothing would come of.

    Raises:
        HttpError: there is one beside those that are known.
    """
    for name in query:
        if name not in known:
            there = f"there {'is' if len(known) == 1 else 'are'}: {', '.join(known) or 'none'}"
            message = f"there is no parameter {name[:60]!r}; {there}"
            raise HttpError(400, message, param=name[:64], code="invalid_request")


def is_number(text: str) -> bool:
    """Whether a text is a whole number of at most 12 digits, without a sign."""
    return text.isascii() and text.isdigit() and len(text) <= 12


def whole_number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number from 1 on in a query.

    Raises:
        InvalidRequest: it is none, or larger than `most`.
    """
    text = query.get(name)
    if text is None:
        return default
    if not (is_number(text) and 1 <= int(text) <= most):
        raise InvalidRequest(f"{name} is a number from 1 to {most}, not {text[:60]!r}")
    return int(text)


def page(entries: Sequence[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """The document of a page.

    Args:
        more: whether there are entries behind it.
    """
    return {
        "object": "list",
        "data": list(entries),
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
        "has_more": more,
    }
