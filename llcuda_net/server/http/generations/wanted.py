"""What a request for a list asks for: its parameters, checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC

from llcuda_net.config.moments import LARGEST, parse_moment
from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.listing import Selection, state_of
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.request import check_names, whole_number
from llcuda_protocol.kinds import MAX_LISTED

#: Entries of a page and hits of a search, where a request does not say.
DEFAULT_LIMIT = 20
#: Hits of a search, at most: each comes with excerpts.
MAX_HITS = 100
#: Characters of a search.
MAX_SEARCH = 4096
#: Each parameter, and what it says.
PARAMETERS = {
    "limit": "entries, at most",
    "after": "the page behind this generation, in the order of the list",
    "before": "the page before this generation, in the order of the list",
    "order": "desc: newest first; asc: oldest first",
    "state": "only those in this state; several by commas",
    "model": "only those of this model",
    "since": "created then or later: a time (RFC 3339; a date; seconds since 1970) or an age (7d)",
    "until": "created before then: as since",
    "q": "only those in which these words are, the best first",
    "semantic": "those whose meaning is nearest to this text, the nearest first",
}
_PAGING = ("after", "before", "order")
_FILTERS = ("state", "model", "since", "until")
_UNIX = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
#: A zone whose plus became a space, as it does in a query that is not encoded.
_SPACED_ZONE = re.compile(r"(T[\d:.]+) (\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """What a list is to have.

    Attributes:
        selection: with one entry more than asked for, where it is a page.
        limit: as asked for.
        backwards: it is the page before one, so it was selected in the other order.
        words: to be searched for; None: no search.
        meaning: of a text that is searched for; None: no such search.
    """

    selection: Selection
    limit: int
    backwards: bool = False
    words: str | None = None
    meaning: str | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """Of the parameters of a request.

        Raises:
            HttpError: there is no such parameter, or two do not go together.
            InvalidRequest: a value is wrong.
        """
        check_names(query, PARAMETERS)
        searches = [name for name in ("q", "semantic") if name in query]
        if len(searches) == 2:
            raise _refused("semantic", "give q or semantic: one of them")
        if searches:
            barred = _PAGING if searches == ["q"] else (*_PAGING, *_FILTERS)
            _bar(query, barred, searches[0])
            if not 1 <= len(query[searches[0]].strip()) <= MAX_SEARCH:
                raise _refused(searches[0], f"{searches[0]} must have 1 to {MAX_SEARCH} characters")
        if "after" in query and "before" in query:
            raise _refused("before", "give after or before: one of them")
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise _refused("order", f"order must be asc or desc, not {order[:60]!r}")
        limit = whole_number(
            query, "limit", DEFAULT_LIMIT, MAX_HITS if searches else MAX_LISTED - 1
        )
        backwards = "before" in query
        selection = Selection(
            limit=limit if searches else limit + 1,
            states=tuple(state_of(name.strip()) for name in query["state"].split(","))
            if "state" in query
            else (),
            model=query.get("model"),
            since=_moment(query, "since"),
            until=_moment(query, "until"),
            after=query.get("after") or query.get("before"),
            ascending=(order == "asc") != backwards,
        )
        return cls(selection, limit, backwards, query.get("q"), query.get("semantic"))


def _bar(query: Mapping[str, str], names: Collection[str], search: str) -> None:
    for name in names:
        if name in query:
            raise _refused(name, f"{name} does not go with {search}")


def _moment(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        if _UNIX.fullmatch(text):
            whole, _, rest = text.partition(".")
            return min(int(whole) * 10**9 + int(rest.ljust(9, "0")), LARGEST)
        return parse_moment(_SPACED_ZONE.sub(r"\1+\2", text[:100]), UTC)
    except OverflowError:
        raise InvalidRequest(f"{name} is too far away: {text[:60]!r}") from None
    except ValueError:
        raise InvalidRequest(
            f"{name} must be a time such as 2026-11-01T14:30:00Z or an age such as 7d, not "
            f"{text[:60]!r}"
        ) from None


def _refused(param: str, message: str) -> HttpError:
    return HttpError(400, message, param=param[:64], code="invalid_request")
