"""The GPUs on which vectors are searched, and what happens when one fails: it is left out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from llcuda_net.errors import ConfigError

if TYPE_CHECKING:
    from llcuda_kernels import VectorStore
    from llcuda_kernels.several.one_process import DeviceLostError, Part, SpreadStore

log = structlog.get_logger(__name__)


class Devices:
    """The GPUs of a server; without any, vectors are searched on the CPU. Safe in threads.

    Args:
        asked: "all", "none", or numbers of GPUs, with commas between them.
        make: makes a GPU's part of a store; None: as `SpreadStore` does.

    Attributes:
        losses: how many have failed.
    """

    def __init__(
        self, asked: str = "all", *, make: Callable[[int, int], Part] | None = None
    ) -> None:
        self._asked = asked
        self._make = make
        self._lock = threading.Lock()
        #: None: not looked for yet, since that loads the drivers' libraries.
        self._there: Sequence[int] | None = None
        self.losses = 0

    def __repr__(self) -> str:
        return f"<Devices {self._asked}: {self._there}, {self.losses} lost>"

    def check(self) -> None:
        """Raises ConfigError where numbers were given of GPUs that are not there."""
        if self._asked in ("all", "none"):
            return
        from llcuda_kernels import gpu
        from llcuda_kernels.several.one_process import gpu_count

        count = gpu_count()
        missing = [number for number in self._numbers() if number >= count]
        if missing:
            here = f"GPUs 0 to {count - 1} are there" if count else gpu().reason
            raise ConfigError(f"--analysis-gpus: there is no GPU {missing[0]}: {here}")

    def store(self, dim: int) -> VectorStore | SpreadStore:
        """An empty store on those that have not failed."""
        from llcuda_kernels import VectorStore
        from llcuda_kernels.several.one_process import SpreadStore

        there = self._usable()
        if not there:
            return VectorStore(dim, backend="cpu")
        if self._make is not None:
            return SpreadStore(dim, there, make=self._make)
        return SpreadStore(dim, there)

    def lose(self, lost: DeviceLostError) -> None:
        """One has failed: no store is made on it any more."""
        with self._lock:
            if self._there is None or lost.device not in self._there:
                return
            self._there = [one for one in self._there if one != lost.device]
            self.losses += 1
            left = ", ".join(map(str, self._there))
        log.error("analysis_gpu_lost", reason=str(lost), now_on=left or "the CPU")

    def _usable(self) -> Sequence[int]:
        with self._lock:
            if self._there is None:
                self._there = self._numbers()
            return self._there

    def _numbers(self) -> Sequence[int]:
        if self._asked == "none":
            return []
        if self._asked != "all":
            return [int(one) for one in self._asked.split(",")]
        from llcuda_kernels.several.one_process import gpu_count

        return range(gpu_count())
