"""llcuda: a server in front of llama.cpp's llama-server, and its client.

    async with llcuda_net.connect("127.0.0.1:9000") as client:
        print(await client.complete("Say hello."))

`llcuda_net.sync` is the same for scripts and notebooks, without async. Names are loaded when they
are first used, so that importing the package, as every command's `--help` does, costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llcuda_net import sync as sync
    from llcuda_net.client import Client as Client
    from llcuda_net.client import connect as connect
    from llcuda_net.client.chat.parts import audio as audio
    from llcuda_net.client.chat.parts import image as image
    from llcuda_net.client.events import Channel as Channel
    from llcuda_net.client.events import Durable as Durable
    from llcuda_net.client.events import Piece as Piece
    from llcuda_net.client.events import Queued as Queued
    from llcuda_net.client.events import Result as Result
    from llcuda_net.client.events import Spliced as Spliced
    from llcuda_net.client.events import ToolCall as ToolCall
    from llcuda_net.client.results import Entry as Entry
    from llcuda_net.client.results import Hit as Hit
    from llcuda_net.client.stream import Stream as Stream
    from llcuda_net.errors import Ahead as Ahead
    from llcuda_net.errors import ConfigError as ConfigError
    from llcuda_net.errors import ConnectError as ConnectError
    from llcuda_net.errors import ConnectionRejected as ConnectionRejected
    from llcuda_net.errors import ContextExceeded as ContextExceeded
    from llcuda_net.errors import Damaged as Damaged
    from llcuda_net.errors import FrameTooLarge as FrameTooLarge
    from llcuda_net.errors import InternalError as InternalError
    from llcuda_net.errors import Interrupted as Interrupted
    from llcuda_net.errors import InvalidRequest as InvalidRequest
    from llcuda_net.errors import KeyConflict as KeyConflict
    from llcuda_net.errors import LlcudaError as LlcudaError
    from llcuda_net.errors import NotFound as NotFound
    from llcuda_net.errors import Overloaded as Overloaded
    from llcuda_net.errors import RequestError as RequestError
    from llcuda_net.errors import RequestTimeout as RequestTimeout
    from llcuda_net.errors import ShuttingDown as ShuttingDown
    from llcuda_net.errors import StorageUnavailable as StorageUnavailable
    from llcuda_net.errors import Unauthorized as Unauthorized
    from llcuda_net.errors import UnknownGeneration as UnknownGeneration
    from llcuda_net.errors import UnknownModel as UnknownModel
    from llcuda_net.errors import UnknownParameter as UnknownParameter
    from llcuda_net.errors import Unsupported as Unsupported
    from llcuda_net.errors import UpstreamError as UpstreamError
    from llcuda_net.errors import UpstreamStalled as UpstreamStalled
    from llcuda_net.errors import UpstreamUnavailable as UpstreamUnavailable

    __version__: str

_HOMES = {
    "Client": "client.client",
    "connect": "client.client",
    "audio": "client.chat.parts",
    "image": "client.chat.parts",
    "Channel": "client.events",
    "Durable": "client.events",
    "Entry": "client.results",
    "Hit": "client.results",
    "Piece": "client.events",
    "Queued": "client.events",
    "Result": "client.events",
    "Spliced": "client.events",
    "ToolCall": "client.events",
    "Stream": "client.stream",
    "Ahead": "errors",
    "ConfigError": "errors",
    "ConnectError": "errors",
    "ConnectionRejected": "errors",
    "ContextExceeded": "errors",
    "Damaged": "errors",
    "FrameTooLarge": "errors",
    "InternalError": "errors",
    "Interrupted": "errors",
    "InvalidRequest": "errors",
    "KeyConflict": "errors",
    "LlcudaError": "errors",
    "NotFound": "errors",
    "Overloaded": "errors",
    "RequestError": "errors",
    "RequestTimeout": "errors",
    "ShuttingDown": "errors",
    "StorageUnavailable": "errors",
    "Unauthorized": "errors",
    "UnknownGeneration": "errors",
    "UnknownModel": "errors",
    "UnknownParameter": "errors",
    "Unsupported": "errors",
    "UpstreamError": "errors",
    "UpstreamStalled": "errors",
    "UpstreamUnavailable": "errors",
}

__all__ = [
    "Ahead",
    "Channel",
    "Client",
    "ConfigError",
    "ConnectError",
    "ConnectionRejected",
    "ContextExceeded",
    "Damaged",
    "Durable",
    "Entry",
    "FrameTooLarge",
    "Hit",
    "InternalError",
    "Interrupted",
    "InvalidRequest",
    "KeyConflict",
    "LlcudaError",
    "NotFound",
    "Overloaded",
    "Piece",
    "Queued",
    "RequestError",
    "RequestTimeout",
    "Result",
    "ShuttingDown",
    "Spliced",
    "StorageUnavailable",
    "Stream",
    "ToolCall",
    "Unauthorized",
    "UnknownGeneration",
    "UnknownModel",
    "UnknownParameter",
    "Unsupported",
    "UpstreamError",
    "UpstreamStalled",
    "UpstreamUnavailable",
    "__version__",
    "audio",
    "connect",
    "image",
    "sync",
]


def __getattr__(name: str) -> Any:
    value: Any
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name == "sync":
        value = import_module(".sync", __name__)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("llcuda-net")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
