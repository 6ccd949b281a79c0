"""Which handler answers a path and a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Handler
from llcuda_net.server.http.request import Headers, HttpRequest

_JSON = "application/json"


class ErrorAnswer(NamedTuple):
    """An error as it is sent."""

    status: int
    body: bytes
    headers: Mapping[str, str]


#: How an API writes the error with which a request is answered.
ErrorFormat = Callable[[HttpError, HttpRequest], ErrorAnswer]


def openai_error(error: HttpError, request: HttpRequest) -> ErrorAnswer:
    """An error as OpenAI's API has it, and all paths that are of no API."""
    return ErrorAnswer(error.status, error.body, error.headers)


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one kind of path.

    Attributes:
        method: GET answers HEAD, too.
        pattern: a path; `{name}` stands for one segment, and gives a parameter; `{name*}`, at its
            end, for one or more, which are given as they came.
        handler: answers.
        json: whether a body must be JSON; another type is refused with 415.
        parts: whether the handler takes the body part by part, with Exchange.receive.
        public: answered to everybody, without a token.
        always: answered also while the server drains, and when all places are taken.
        awaited: whether a server that stops waits for the end of its answer.
        errors: how errors are written, those before the handler, too; the same for all methods.
    """

    method: str
    pattern: str
    handler: Handler
    json: bool = True
    parts: bool = False
    public: bool = False
    always: bool = False
    awaited: bool = True
    errors: ErrorFormat = openai_error

    def check_type(self, headers: Headers) -> None:
        """Refuse a body of a type that is not taken here.

        Raises:
            HttpError: as said.
        """
        kind = (headers.get("content-type") or _JSON).partition(";")[0].strip().lower()
        if self.json and kind != _JSON and not kind.endswith("+json"):
            raise HttpError(415, f"the Content-Type must be {_JSON}, not {kind!r:.80}")
        if (headers.get("content-encoding") or "identity").lower() != "identity":
            raise HttpError(415, "a body is taken as it is, without a Content-Encoding")


class Routes:
    """All routes, by their patterns."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: list[tuple[tuple[str, ...], dict[str, Route]]] = []
        for route in routes:
            segments = tuple(route.pattern.split("/"))
            found = next((m for s, m in self._routes if s == segments), None)
            if found is None:
                found = {}
                self._routes.append((segments, found))
            found[route.method] = route
        # A path that is written out goes before a pattern that it matches, too.
        self._routes.sort(key=lambda entry: [segment.startswith("{") for segment in entry[0]])

    def __repr__(self) -> str:
        return f"<Routes of {len(self._routes)} paths>"

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]] | None:
        """The routes of a path by method, and its parameters; None: there is nothing there.

        Args:
            path: as it came, percent-encoded: an encoded slash divides nothing.

        Raises:
            UnicodeDecodeError: a parameter is no UTF-8.
        """
        given = path.split("/")
        for segments, methods in self._routes:
            parameters = _parameters(segments, given)
            if parameters is not None:
                return methods, parameters
        return None


def _parameters(pattern: Sequence[str], given: Sequence[str]) -> dict[str, str] | None:
    """The parameters of a path; None: the pattern is another one's."""
    parameters = {}
    if pattern[-1].endswith("*}"):
        *pattern, last = pattern
        given, rest = given[: len(pattern)], "/".join(given[len(pattern) :])
        if not rest:
            return None
        parameters[last[1:-2]] = rest
    if len(pattern) != len(given):
        return None
    for segment, value in zip(pattern, given, strict=True):
        if segment.startswith("{"):
            parameters[segment[1:-1]] = unquote(value, errors="strict")
            if not value:
                return None
        elif segment != unquote(value, errors="replace"):
            return None
    return parameters
