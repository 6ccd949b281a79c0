"""`llcuda-client --json`: one object per line and event."""

from __future__ import annotations

import json
from typing import Any

from llcuda_net.client.stream import Piece, Queued, Result, Spliced, TokenLogprob, TopToken
from llcuda_net.errors import ConnectError, RequestError, request_error
from llcuda_net.sync import Stream
from llcuda_net.util.terminal import echo


class JsonOutput:
    """One JSON object per line: accepted, queue, piece, durable, splice and done.

    What is not text comes as reasoning and tool_call, so that the pieces are still the answer.

    Args:
        at_once: write only the last of them, with the whole text in it.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once

    def accepted(self, stream: Stream) -> None:
        """The first line: the id."""
        self._write(
            "accepted",
            id=stream.id,
            position=stream.position,
            level=stream.level,
            epoch=stream.epoch,
            cached=stream.cached,
            wait=stream.wait,
            reason=stream.reason,
        )

    def queued(self, queued: Queued) -> None:
        """A queue line."""
        self._write("queue", **queued._asdict())

    def piece(self, piece: Piece) -> None:
        """A line of the piece's channel: piece where that is text."""
        channel = piece.channel
        event = "piece" if channel.kind == "text" else channel.kind
        extra: dict[str, Any] = {} if piece.id is None else {"id": piece.id}
        if channel.kind == "tool_call":
            extra |= {"index": channel.index, "call_id": channel.id, "name": channel.name}
        if piece.logprobs is not None:
            extra["logprobs"] = [_logprob(token) for token in piece.logprobs]
        self._write(event, sequence=piece.sequence, text=piece.text, **extra)

    def durable(self, pieces: int) -> None:
        """A durable line."""
        self._write("durable", count=pieces)

    def spliced(self, spliced: Spliced) -> None:
        """A splice line."""
        self._write("splice", **spliced._asdict())

    def done(self, result: Result) -> None:
        """The last line."""
        whole: dict[str, Any] = {"text": result.text} if self._at_once else {}
        if self._at_once and result.reasoning:
            whole["reasoning"] = result.reasoning
        if result.tool_calls:
            whole["tool_calls"] = [call._asdict() for call in result.tool_calls]
        self._write(
            "done",
            **whole,
            reason=result.reason,
            stop=result.stop,
            id=result.id,
            model=result.model,
            usage=result.usage,
            timings=result.timings,
            splices=result.splices,
            cached=result.cached,
        )

    def close(self) -> None:
        """Nothing is left open."""

    def _write(self, event: str, **values: Any) -> None:
        if not self._at_once or event == "done":
            _print_json(event, **values)


def print_json_error(error: RequestError | ConnectError) -> None:
    """The last line after a failure: a refusal, or no connection (code `no_connection`)."""
    if isinstance(error, ConnectError):
        error = request_error("no_connection", str(error), retry=True)
    _print_json(
        "error",
        code=error.code,
        message=error.message,
        retry=error.retry,
        retry_after=error.retry_after,
    )


def _print_json(event: str, **values: Any) -> None:
    echo(json.dumps({"event": event, **values}), flush=True)


def _logprob(token: TokenLogprob | TopToken) -> dict[str, Any]:
    # The text of one token need not be whole characters; its bytes are exact.
    found: dict[str, Any] = {
        "id": token.id,
        "text": token.bytes.decode("utf-8", "replace"),
        "bytes": list(token.bytes),
        "logprob": token.logprob,
    }
    if isinstance(token, TokenLogprob):
        found["top"] = [_logprob(candidate) for candidate in token.top]
    return found
