"""How a response is written, and what is kept of it for that; see delivery/format.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.delivery.format import Commented, model_of
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.responses.answers import Shape, encode, response_of
from llcuda_net.server.http.responses.events import ResponseEvents, error_event


class ResponseFormat(Commented, Shape, frozen=True, omit_defaults=True):
    """How a response is written."""

    kind: ClassVar[str] = "response"
    eager: ClassVar[bool] = True
    tail: ClassVar[bytes] = b""

    def writer(
        self, generation: Generation, index: int, first: Generation, after: int | None
    ) -> ResponseEvents:
        """See Format."""
        return ResponseEvents(generation, self, after)

    def total(self, generations: Sequence[Generation]) -> bytes | None:
        """There is none: the last event has what was used."""
        return None

    def error(self, error: HttpError) -> bytes:
        """See Format."""
        return error_event(error)

    def whole(self, generations: Sequence[Generation]) -> bytes:
        """The response as it is now."""
        return encode(response_of(generations[0], self))


def form_of_api(api: dict[str, Any] | None) -> ResponseFormat | None:
    """How a response is written, by what is kept of it with its request; None: it is none."""
    if api is None or api.get("kind") != ResponseFormat.kind:
        return None
    return msgspec.convert(api["shape"], ResponseFormat)


def form_of(generation: Generation) -> ResponseFormat:
    """How a generation is written as a response; any is, whatever API it was asked for."""
    found = form_of_api(generation.api)
    return ResponseFormat(model_of(generation), stream=True) if found is None else found
