"""What asks a router, or what may be one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from llcuda_net.upstream.interface import Upstream
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.router.client import RouterClient
from llcuda_net.upstream.router.servers import Entrance, RoutedServer


class ClosableUpstream(Upstream, Protocol):
    """An upstream with connections of its own."""

    async def aclose(self) -> None:
        """Close the connections that are kept."""


class Connector:
    """Makes what asks llama-servers and routers.

    Args:
        poller: reads their token streams.
        timeouts: how long they may be silent.
        folder: where hashes of model files are kept; None: none are computed.
    """

    def __init__(self, poller: Poller, timeouts: StreamTimeouts, folder: Path | None) -> None:
        self.folder = folder
        self._poller = poller
        self._timeouts = timeouts

    def router(self, url: str, key: str | None) -> RouterClient:
        """What lists the models of a router.

        Raises:
            ConfigError: the URL is none, or there are two kinds of credentials.
        """
        return RouterClient(url, key)

    def entrance(
        self, url: str, key: str | None, on_router: Callable[[], Awaitable[None]]
    ) -> ClosableUpstream:
        """A llama-server that may be a router; see Entrance."""
        return Entrance(
            url, self._poller, api_key=key, timeouts=self._timeouts, on_router=on_router
        )

    def model(
        self, url: str, key: str | None, model: str, on_trouble: Callable[[], None]
    ) -> ClosableUpstream:
        """One model of a router; see RoutedServer."""
        return RoutedServer(
            url,
            self._poller,
            model,
            api_key=key,
            timeouts=self._timeouts,
            on_trouble=on_trouble,
        )
