"""What the parts of the simulation tell the world that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.simulated_cluster.server import Server


class Outside:
    """What a server tells the world of: `World` checks it."""

    def next_epoch(self, last: int) -> int:
        """As util.time_ids.next_epoch."""
        raise NotImplementedError

    def new_id(self) -> str:
        """An id that no generation has."""
        raise NotImplementedError

    def servers(self) -> list[Server]:
        """All that run, stopped ones among them."""
        raise NotImplementedError

    def begun(self, id_: str, key: str) -> None:
        """A generation begins."""

    def accepted(self, id_: str) -> None:
        """A client may be told that a generation is accepted."""

    def moved(self, id_: str, pieces: int) -> None:
        """A generation goes on that a live server has handed over, with all that it had."""

    def asked(self, url: str, server: int, epoch: int) -> None:
        """An upstream is asked for a piece, by this life and with this claim."""
