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
    from llcuda_net.client.events import Durable as Durable
    from llcuda_net.client.events import Piece as Piece
    from llcuda_net.client.events import Queued as Queued
    from llcuda_net.client.events import Result as Result
    from llcuda_net.client.events import Spliced as Spliced
    from llcuda_net.client.results import Entry as Entry
    from llcuda_net.client.results import Hit as Hit
    from llcuda_net.client.stream import Stream as Stream
    from llcuda_net.errors import ConfigError as ConfigError
    from llcuda_net.errors import ConnectError as ConnectError
    from llcuda_net.errors import LlcudaError as LlcudaError
    from llcuda_net.errors import RequestError as RequestError

    __version__: str

_HOMES = {
    "Client": "client.client",
    "connect": "client.client",
    "Durable": "client.events",
    "Entry": "client.results",
    "Hit": "client.results",
    "Piece": "client.events",
    "Queued": "client.events",
    "Result": "client.events",
    "Spliced": "client.events",
    "Stream": "client.stream",
    "ConfigError": "errors",
    "ConnectError": "errors",
    "LlcudaError": "errors",
    "RequestError": "errors",
}

__all__ = [
    "Client",
    "ConfigError",
    "ConnectError",
    "Durable",
    "Entry",
    "Hit",
    "LlcudaError",
    "Piece",
    "Queued",
    "RequestError",
    "Result",
    "Spliced",
    "Stream",
    "__version__",
    "connect",
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
