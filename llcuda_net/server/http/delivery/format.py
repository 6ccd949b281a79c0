"""How an API writes its answers: what the delivery of them needs of it.

An API has one class of these, a msgspec struct: its fields are what the generations do not say of
the answer, and are kept with the request, so that this server and the next one write the same
bytes. `server/http/formats.py` has them by their kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from llcuda_net.errors import Interrupted
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.errors import HttpError, of_request_error


class Writer(Protocol):
    """Makes the events of one generation, each a pure function of its log and a position in it.

    What it returns are whole server-sent events, each with the empty line behind it. The log must
    be in memory where a piece of it is written.
    """

    def begin(self) -> bytes:
        """The events before the first piece; empty: there are none."""

    def at(self, position: int, id_: bytes) -> bytes:
        """The events of the piece at this position; fastest where they are taken in order.

        Args:
            id_: of the last one: by it a reader resumes behind this piece.
        """

    def last(self, id_: bytes) -> bytes:
        """The events behind the last piece of a generation that is done."""

    def failed(self, error: HttpError, id_: bytes) -> bytes:
        """The events behind the last piece of a generation that is over and not done."""


class Format(Protocol):
    """The shape of the answer to one request.

    Attributes:
        kind: names the API; kept with the request.
        stream: the answer is streamed.
        eager: a stream begins as soon as the request is accepted: what fails then, fails in it.
        tail: what ends a stream behind its last event.
    """

    kind: ClassVar[str]
    eager: ClassVar[bool]
    tail: ClassVar[bytes]

    @property
    def stream(self) -> bool:
        """The answer is streamed."""

    @property
    def model(self) -> str:
        """The name of the model that answers."""

    def writer(
        self, generation: Generation, index: int, first: Generation, after: int | None
    ) -> Writer:
        """What writes the events of a choice.

        Args:
            index: of the choice, where there are several.
            first: the generation of the first choice, by which the answer is named.
            after: where the API numbers its events: the last one that the reader has. Those up to
                it are left out.
        """

    def total(self, generations: Sequence[Generation]) -> bytes | None:
        """The data of an event behind those of all choices; None: there is none."""

    def error(self, error: HttpError) -> bytes:
        """The event of a stream that ends before its generations do."""

    def comment(self, text: str) -> bytes:
        """What is sent while there is nothing to send."""

    def whole(self, generations: Sequence[Generation]) -> bytes:
        """The body of an answer that is not streamed, of generations that are done."""


class Commented:
    """Of a format whose streams are kept open by comments."""

    __slots__ = ()

    def comment(self, text: str) -> bytes:
        """A comment: one line, since an empty one behind it would end an event."""
        return b": %b\n" % text.encode()


def model_of(generation: Generation) -> str:
    """The name of the model that answers, where no format was kept that has it."""
    known = generation.wanted or generation.outcome.model or generation.model.get("name")
    return str(known or "")


def failure_of(generation: Generation) -> HttpError | None:
    """The error with which a generation ended; None: it is done."""
    if generation.state is State.CANCELLED:
        # As no SDK would ask again by itself.
        return HttpError(
            409,
            "the generation was cancelled",
            code="cancelled",
            headers={"x-should-retry": "false"},
        )
    if generation.state in (State.FAILED, State.INTERRUPTED):
        error = generation.error or Interrupted("the server was stopped before the end", retry=True)
        return of_request_error(error)
    lost = generation.lost
    return None if lost is None else of_request_error(lost)
