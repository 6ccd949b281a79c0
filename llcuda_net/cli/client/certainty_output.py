"""`llcuda-client --certainty`: answers with their least certain words marked, and the figures."""

from __future__ import annotations

import sys
from typing import Any

from llcuda_net.analysis.certainty import certainty_stats
from llcuda_net.cli.client.certainty import figures_of_text, marked_text
from llcuda_net.cli.client.output import JsonOutput, TextOutput
from llcuda_net.cli.results import json_documents
from llcuda_net.cli.tables import fields
from llcuda_net.client.stream import Piece, Result
from llcuda_net.storage.records import Logprobs
from llcuda_net.storage.results.interface import Figures
from llcuda_net.util.terminal import is_terminal


class _Heard:
    """The pieces that have come, with their log-probabilities."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.logprobs: Logprobs = []
        self._some = False
        self._first: int | None = None  # number of the first piece: another than 0 when attached

    def add(self, piece: Piece) -> None:
        """One more; what was taken back before it is dropped."""
        if self._first is None:
            self._first = piece.sequence
        place = max(0, piece.sequence - self._first)
        del self.pieces[place:], self.logprobs[place:]
        self._some = self._some or piece.logprobs is not None
        self.pieces.append(piece.text)
        self.logprobs.append(
            [
                [t.id, t.bytes, t.logprob, [[c.id, c.bytes, c.logprob] for c in t.top]]
                for t in piece.logprobs or ()
            ]
        )

    def figures(self) -> Figures | None:
        """The figures; None where no log-probabilities came."""
        return certainty_stats([self.logprobs], compiled=False)[0] if self._some else None


class CertainText(TextOutput):
    """The text at the end, since only then it is known which words are the least certain."""

    def __init__(self) -> None:
        super().__init__(at_once=True)
        self._heard = _Heard()

    def piece(self, piece: Piece) -> None:
        """Keep it."""
        self._heard.add(piece)

    def done(self, result: Result) -> None:
        """Print the text, and on stderr the figures."""
        heard = self._heard
        self._waiting.erase()
        text = marked_text(heard.pieces, heard.logprobs, exact=not is_terminal(sys.stdout))
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
        figures = heard.figures()
        if figures is None:
            lines = ["no log-probabilities came: how sure the model was is not known"]
        else:
            lines = [*fields(figures_of_text(heard.pieces, heard.logprobs, figures))]
        print("\n".join(lines), file=sys.stderr, flush=True)


class CertainJson(JsonOutput):
    """The figures are in the line `done`."""

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__(at_once=at_once)
        self._heard = _Heard()

    def piece(self, piece: Piece) -> None:
        """A piece line."""
        self._heard.add(piece)
        super().piece(piece)

    def _write(self, event: str, **values: Any) -> None:
        if event == "done":
            values["certainty"] = json_documents.certainty(self._heard.figures())
        super()._write(event, **values)
