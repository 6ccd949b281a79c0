"""Which server is at an address, opened for the length of a block."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Literal

import msgspec
import trio

from llcuda_net.batch.targets.gateway import GatewayTarget
from llcuda_net.batch.targets.llama import LlamaTarget
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.client import connect
from llcuda_net.client.dial import addresses_of
from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.llama.transport.origin import Origin

#: By which API a server with a URL is asked.
Api = Literal["auto", "llama", "openai", "llcuda"]
#: What is done before a measurement, see `open_target`.
Prepare = Literal["ask", "tell"]
#: What connecting says where the server speaks HTTP, and not llcuda's protocol.
_HTTP = "is an HTTP server"
#: Seconds for a server to say which it is.
_WHICH_TIMEOUT = 5.0


@asynccontextmanager
async def open_target(
    server: str,
    *,
    connections: int = 1,
    token: str | None = None,
    tls: bool = False,
    tls_ca: str | None = None,
    api_key: str | None = None,
    api: Api = "llama",
    model: str | None = None,
    stall_timeout: float = 600.0,
    prepare: Prepare | None = None,
    **options: Any,
) -> AsyncIterator[GatewayTarget | LlamaTarget | OpenAITarget]:
    """The target at an address: a URL is a server with an HTTP API, else it is an llcuda-server.

    Args:
        connections: to an llcuda-server.
        token, tls, tls_ca: for an llcuda-server, as for `llcuda_net.connect`.
        api_key: of a server with a URL, where it asks for one.
        api: by which API a server with a URL is asked; "auto": OpenAI's where the URL ends with
            /v1, else what the server has.
        model: to be asked by the OpenAI API; None: the first one that the server lists.
        stall_timeout: seconds without a token before a server with a URL is given up.
        prepare: before a measurement: a server with the OpenAI API is asked for a chat and for
            what it is, see `OpenAITarget.prepare`, or only for what it is; and an llcuda-server's
            HTTP may be asked for tokens.
        options: more for `llcuda_net.connect`.

    Raises:
        ConfigError: the address is none.
        ConnectError: no llcuda-server could be reached there.
        RequestError: nothing could be reached at the URL, or the token is wrong.
    """
    async with AsyncExitStack() as stack:
        if server.startswith(("http://", "https://")):
            if api == "openai" or (
                api == "auto" and (is_openai(server) or await speaks_openai(server, api_key))
            ):
                openai = OpenAITarget(
                    server, model=model, api_key=api_key, stall_timeout=stall_timeout
                )
                stack.push_async_callback(openai.aclose)
                await openai.choose_model(embeds=prepare == "tell")
                if prepare is not None:
                    await openai.prepare(chat=prepare == "ask")
                yield openai
                return
            poller = Poller()
            llama = LlamaServer(
                server, poller, api_key=api_key, timeouts=StreamTimeouts(stall=stall_timeout)
            )
            stack.push_async_callback(llama.aclose)
            nursery = await stack.enter_async_context(in_nursery())
            nursery.start_soon(poller.run)
            await llama.ask()
            yield LlamaTarget(llama.base_url, llama)
            nursery.cancel_scope.cancel()
            return
        try:
            clients = [
                await stack.enter_async_context(
                    connect(server, token=token, tls=tls, tls_ca=tls_ca, **options)
                )
                for _ in range(max(1, connections))
            ]
        except ConnectError as error:
            if prepare is None or _HTTP not in str(error):
                raise
            raise ConnectError(
                f"{server} {_HTTP}, not an llcuda-server: if it has OpenAI's API, its URL is"
                f" http://{server}/v1"
            ) from None
        http = None
        if prepare and not (tls or tls_ca):
            http = Origin(BaseUrl.parse(f"http://{addresses_of(server)[0]}"), token)
            stack.push_async_callback(http.aclose)
        yield GatewayTarget(server, clients, http)


def is_openai(url: str) -> bool:
    """Whether a URL is that of an OpenAI API by its path."""
    return re.search(r"/v1(/chat/completions)?/*$", url) is not None


async def speaks_openai(url: str, api_key: str | None) -> bool:
    """Whether a server is no llama-server, by /props, and by /health where /props is refused.

    A server that cannot be reached is taken for a llama-server: opening it says what is wrong.
    """
    origin = Origin(BaseUrl.parse(url, "server"), api_key)
    try:
        status, _, content = await origin.get("GET", "/props", timeout=_WHICH_TIMEOUT)
        if status == 200:
            return "default_generation_settings" not in _object(content)
        if status in (401, 403):  # its /health needs no key
            _, _, content = await origin.get("GET", "/health", timeout=_WHICH_TIMEOUT)
            return _object(content).get("status") != "ok"
        return status not in (429, 503)  # a llama-server that loads its model, or is busy
    except RequestError:
        return False
    finally:
        await origin.aclose()


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object; empty where it is none."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = msgspec.json.decode(data)
        if isinstance(found, dict):
            return found
    return {}


@asynccontextmanager
async def in_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose body's exception leaves as it is, not in a group; its tasks are cancelled."""
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:
            raised = error
            nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised
