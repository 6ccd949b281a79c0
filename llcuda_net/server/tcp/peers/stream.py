"""A stream whose client is another server of the cluster: with facts about the generation."""

from __future__ import annotations

from typing import Any

from llcuda_net.errors import LeaseLost
from llcuda_net.server.tcp.peers.facts import Begun, Over, Run, frames
from llcuda_net.server.tcp.stream import GenerationStream


class PeerStream(GenerationStream):
    """Sends what the other server needs to answer for the generation as this one does.

    Args:
        asked: whether the other server needs to know what was asked.
        more: as of GenerationStream.
    """

    def __init__(self, *args: Any, asked: bool, **more: Any) -> None:
        self._asked = asked
        self._told: Run | None = None
        super().__init__(*args, **more)

    def pump(self) -> None:
        """See GenerationStream."""
        if self._told is not None and self._reading and not self.generation.ended:
            self._tell_run()
        super().pump()

    def _accept(self) -> None:
        begun = Begun.of(self.generation, asked=self._asked)
        self._told = begun.run
        self._tell(begun)
        super()._accept()

    def _finish(self) -> None:
        # Without it the end of the stream says nothing of the generation: it goes on elsewhere.
        if not isinstance(self.generation.error, LeaseLost):
            self._tell(Over.of(self.generation))
        super()._finish()

    def _tell_run(self) -> None:
        generation, told = self.generation, self._told
        assert told is not None
        if (
            told.state != generation.state
            or told.upstream != generation.upstream
            or told.model is not generation.model
            or len(told.splices) != len(generation.splices)
            or len(told.failovers) != len(generation.failovers)
        ) and self._connection.is_open(self._number):
            self._told = Run.of(generation)
            self._tell(self._told)

    def _tell(self, document: Begun | Run | Over) -> None:
        for frame in frames(self._number, document):
            self._buffer.add(self._connection.send(frame))
