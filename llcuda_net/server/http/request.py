"""One HTTP request as handlers see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from llcuda_net.config.users import User


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
