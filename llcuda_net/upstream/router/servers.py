"""A llama-server that may be a router, and one model of a router, as upstreams."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from llcuda_net.errors import InvalidRequest, RequestError, UpstreamBusy, UpstreamUnavailable
from llcuda_net.upstream.interface import DOWN, Properties
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.properties import IsRouter
from llcuda_net.upstream.llama.token_stream import StreamTimeouts

#: Seconds after which a model is looked at again that the router has just not had.
_SOON = 0.1
#: What a router answers of a model that it knows and does not run, or does not know any more.
_NOT_RUNNING = re.compile(r"model is not loaded|model name=.* is not running|model '.*' not found")
#: What it answers, or ends an answer with, where the process of the model has ended.
_LOST = "proxy error"


class Entrance(LlamaServer):
    """A llama-server by URL, of which /props says whether it is a router.

    Args:
        on_router: called when it is one. What it raises is raised in place of its properties.
    """

    def __init__(
        self,
        url: str,
        poller: Poller,
        *,
        api_key: str | None = None,
        timeouts: StreamTimeouts | None = None,
        on_router: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(url, poller, api_key=api_key, timeouts=timeouts)
        self._on_router = on_router

    async def ask(self) -> Properties:
        """Its properties, from memory where they are known.

        Raises:
            IsRouter: it has none.
            RequestError: as LlamaServer.ask.
        """
        try:
            return await super().ask()
        except IsRouter:
            await self._on_router()
            await trio.lowlevel.checkpoint()  # where what watched it is cancelled, it ends here
            raise


class RoutedServer(LlamaServer):
    """One model of a router.

    Args:
        url: the router's.
        model: by the router's name.
        on_trouble: called when an answer shows that the router may not run it any more.
    """

    def __init__(
        self,
        url: str,
        poller: Poller,
        model: str,
        *,
        api_key: str | None = None,
        timeouts: StreamTimeouts | None = None,
        on_trouble: Callable[[], None],
    ) -> None:
        super().__init__(url, poller, api_key=api_key, timeouts=timeouts, model=model)
        self._on_trouble = on_trouble

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            with super()._reached():
                yield
        except RequestError as error:
            found = _understood(error)
            if found.code in DOWN:
                self._on_trouble()
            if found is error:
                raise
            if not isinstance(found, UpstreamBusy):
                self.forget()
            raise found from None


def _understood(error: RequestError) -> RequestError:
    """What a router's answer means for a request to one of its models."""
    if isinstance(error, InvalidRequest) and _NOT_RUNNING.search(error.message):
        # The request is not at fault, and nothing has failed: it waits until the model is there.
        return UpstreamBusy("the router does not run the model now", retry=True, retry_after=_SOON)
    if error.code not in DOWN and _LOST in error.message:
        return UpstreamUnavailable(
            f"the router lost the model's process ({error.message})"[:500], retry=True
        )
    return error
