"""Local models whose engines are no processes: they load in virtual time, and fail on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import trio

from llcuda_net.config.models import ModelSpec
from llcuda_net.errors import EngineError
from llcuda_net.models.files.memory import Bytes, Estimate
from llcuda_net.models.need import Need
from llcuda_net.models.serving.instance import Described, Instance
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.residence import Wishes
from tests.support.upstream.scripted_upstream import Talker


async def here(work: Callable[[], Need | None]) -> Need | None:
    """Measures in this thread: others know nothing of virtual time."""
    await trio.lowlevel.checkpoint()
    return work()


class FakeEngine:
    """An engine that answers after `seconds`, or fails then.

    Attributes:
        fails: why its next loads fail; None: they do not.
        starts: when it was started, on trio's clock.
        running: whether its process is there.
        ends: how long its process takes to end, in seconds.
    """

    program = None
    unified = True
    pid: int | None = None
    restarts = 0
    api_key = "key"

    def __init__(self, seconds: float, on_change: Callable[[], None]) -> None:
        self.seconds = seconds
        self.fails: str | None = None
        self.starts: list[float] = []
        self.running = False
        self.ends = 0.0
        self.base_url: str | None = None
        self._on_change = on_change

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.starts.append(trio.current_time())
        self.running = True
        try:
            await trio.sleep(self.seconds)
            if self.fails is not None:
                raise EngineError(self.fails)
            self._turn("http://127.0.0.1:1")
            task_status.started()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.ends)
            self.running = False
            self._turn(None)

    def public_facts(self) -> dict[str, Any]:
        return {"engine": "builtin"}

    def _turn(self, url: str | None) -> None:
        self.base_url = url
        self._on_change()


class FakeServer(Talker):
    """The client of such an engine."""

    starting = False
    base_url = "http://127.0.0.1:1"

    async def reranks(self) -> bool:
        return False

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class FakeModel(Instance):
    """A local model without a process.

    Args:
        size: bytes of memory that it is estimated to take.
        takes: bytes that it turns out to take; None: that is not known.
        seconds: that it takes to load.
        spec: what its table has.
    """

    def __init__(
        self,
        name: str,
        wishes: Wishes,
        *,
        size: int = 1,
        takes: int | None = None,
        seconds: float = 1.0,
        slots: int = 1,
        **spec: Any,
    ) -> None:
        self.engine: FakeEngine
        self.server = FakeServer(model=name, slots=slots)
        self._takes = takes

        def make_engine(on_change: Callable[[], None]) -> Engine:
            self.engine = FakeEngine(seconds, on_change)
            return cast(Engine, self.engine)

        super().__init__(
            Described(ModelSpec(name, **spec), Path(f"/m/{name}.gguf"), cast(Any, None)),
            Estimate(weights=Bytes(host=size)),
            make_engine,
            lambda url, key: cast(LlamaServer, self.server),
            cast(Poller, None),
            wishes,
        )

    def measured(self) -> Need | None:
        return None if self._takes is None else Need(self._takes)
