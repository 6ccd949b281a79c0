"""Requests to a llama-server in router mode that are for no model of its: list, load."""

from __future__ import annotations

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import InvalidRequest, UpstreamBusy, UpstreamError
from llcuda_net.upstream.llama import short_answers as answers
from llcuda_net.upstream.llama.transport.origin import Origin
from llcuda_net.upstream.router.listing import ListedModel, limit_of, models_of

#: Seconds for a list of the models.
LIST_TIMEOUT = 5.0
#: Seconds to begin to load: where another model must leave, its process ends first.
LOAD_TIMEOUT = 60.0
#: What a router answers where as many models as it may have are loaded, and all of them work.
_FULL = "model limit reached"
#: What it answers where somebody else had the model loaded.
_RUNS = "already running"


class RouterClient:
    """Requests to one router.

    Args:
        url: where it is.
        api_key: sent as a bearer token, where it wants one.

    Raises:
        ConfigError: the URL is none, or there are two kinds of credentials.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._origin = Origin(BaseUrl.parse(url), api_key)

    def __repr__(self) -> str:
        return f"<RouterClient {self._origin}>"

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._origin.aclose()

    async def models(self) -> list[ListedModel] | None:
        """The models that it can serve; None where it is no router.

        Raises:
            RequestError: it cannot be reached, or does not list them.
        """
        return await self._origin.ask("GET", "/models", models_of, timeout=LIST_TIMEOUT)

    async def limit(self) -> int | None:
        """How many models it loads at once; None: any number.

        Raises:
            RequestError: as `models`.
        """
        return await self._origin.ask("GET", "/props", limit_of, timeout=LIST_TIMEOUT)

    async def load(self, model: str) -> None:
        """Have it begin to load a model; returns at once, but for the end of one that must leave.

        Raises:
            UpstreamBusy: there is no room, as long as all that are loaded work.
            RequestError: it does not.
        """
        body = {"model": model}
        try:
            await self._origin.ask(
                "POST", "/models/load", answers.nothing, body, timeout=LOAD_TIMEOUT
            )
        except InvalidRequest as error:
            if _RUNS not in error.message:
                raise
        except UpstreamError as error:
            if _FULL not in error.message:
                raise
            raise UpstreamBusy(
                "the router has no room for another model while all that are loaded work",
                retry=True,
            ) from None
