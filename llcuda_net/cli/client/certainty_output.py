"""`llcuda-client --certainty`: answers with their least certain words marked, and the figures."""

from __future__ import annotations

import sys
from typing import Any

from llcuda_net.analysis.certainty import certainty_stats
from llcuda_net.cli import json_documents
from llcuda_net.cli.client.json_output import JsonOutput
from llcuda_net.cli.client.output import TextOutput
from llcuda_net.cli.results.certainty import figures_of_text, marked_text
from llcuda_net.cli.tables import fields
from llcuda_net.client.stream import Piece, Result
from llcuda_net.storage.records import Logprobs, packed
from llcuda_net.storage.results.interface import CertaintyStats
from llcuda_net.util.terminal import echo, echo_data, is_terminal


class _Received:
    """The pieces that have come, with their log-probabilities."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.logprobs: Logprobs = []
        self._some = False
        self._first: int | None = None  # number of the first piece: another than 0 when attached

    def add(self, piece: Piece) -> None:
        """Add a piece; those from its place on that came before are dropped."""
        if self._first is None:
            self._first = piece.sequence
        if piece.channel.kind != "text":  # in its place, but not of the answer
            piece = Piece(piece.sequence, "")
        place = max(0, piece.sequence - self._first)
        del self.pieces[place:], self.logprobs[place:]
        self._some = self._some or piece.logprobs is not None
        self.pieces.append(piece.text)
        self.logprobs.append(
            packed(
                [
                    [t.id, t.bytes, t.logprob, [[c.id, c.bytes, c.logprob] for c in t.top]]
                    for t in piece.logprobs or ()
                ]
            )
        )

    def figures(self) -> CertaintyStats | None:
        """The figures; None where no log-probabilities came."""
        return certainty_stats([self.logprobs], compiled=False)[0] if self._some else None


class CertainText(TextOutput):
    """The text at the end: only then are the least certain words known."""

    def __init__(self, *, think: bool = False) -> None:
        super().__init__(at_once=True, think=think)
        self._received = _Received()

    def piece(self, piece: Piece) -> None:
        """Hold it until the end."""
        if piece.channel.kind == "reasoning":
            self._waiting.thinking()
        self._received.add(piece)

    def done(self, result: Result) -> None:
        """Print the text, and on stderr the figures."""
        received = self._received
        self._waiting.erase()
        self._write_thought(result.reasoning)
        self._end_thought()
        text = marked_text(received.pieces, received.logprobs, exact=not is_terminal(sys.stdout))
        text = text if text.endswith("\n") else text + "\n"
        if is_terminal(sys.stdout):
            echo(text, end="", flush=True, styled=True)
        else:
            echo_data(text)
        for call in result.tool_calls:
            self._write_call(call)
        figures = received.figures()
        if figures is None:
            lines = ["no log-probabilities came: how sure the model was is not known"]
        else:
            lines = [*fields(figures_of_text(received.pieces, received.logprobs, figures))]
        echo("\n".join(lines), file=sys.stderr, flush=True)


class CertainJson(JsonOutput):
    """The figures are in the line `done`."""

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__(at_once=at_once)
        self._received = _Received()

    def piece(self, piece: Piece) -> None:
        """A piece line."""
        self._received.add(piece)
        super().piece(piece)

    def _write(self, event: str, **values: Any) -> None:
        if event == "done":
            values["certainty"] = json_documents.certainty(self._received.figures())
        super()._write(event, **values)
