"""How a server ends: nothing new, some time for what runs, and the rest for the next server."""

from __future__ import annotations

import structlog
import trio

from llcuda_net.errors import ShuttingDown
from llcuda_net.generation.registry import Registry
from llcuda_net.server.tcp.listener import Listener

log = structlog.get_logger(__name__)

#: Seconds for the last frames to reach the clients.
_FAREWELL = 1.0
#: Seconds between two looks at whether all is over.
_LOOK = 0.02


async def drain(registry: Registry, listener: Listener, grace: float) -> None:
    """Tell the clients, let what runs come to its end for `grace` seconds, and end the rest.

    What has not ended by then is left in the journal for the next server, or, where it is not
    journalled, fails; its clients get an error that may be retried.
    """
    log.info("draining", seconds=grace, running=len(registry))
    listener.drain(grace)
    for generation in registry:
        if generation.stranded:
            generation.suspend()
    await _settle(registry, listener, grace)
    error = ShuttingDown("the server stopped before the end; try again later", retry=True)
    listener.hand_back(error)
    for generation in registry:
        if generation.level.journalled:
            generation.suspend()
        else:
            generation.hand_back(error)
    await _settle(registry, listener, _FAREWELL)


async def _settle(registry: Registry, listener: Listener, seconds: float) -> None:
    """Wait, for a bounded time, until nothing runs and everything has been sent."""
    with trio.move_on_after(seconds):
        # Polled: it takes many parts to be quiet, and happens once in a server's life.
        while len(registry) or listener.busy:  # noqa: ASYNC110
            await trio.sleep(_LOOK)
