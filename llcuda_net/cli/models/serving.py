"""What `llcuda models load` and `unload` share: the models of a server, over HTTP."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llcuda_net.cli import server_options
from llcuda_net.cli.common import CommandError, Exit, fail, print_error
from llcuda_net.errors import ConnectError
from llcuda_net.util.terminal import echo

if TYPE_CHECKING:
    import httpx

#: States in which a model answers requests.
THERE = ("loaded", "busy", "leaving")
#: Seconds between two looks at a model.
_LOOK = 0.3


class RefusedError(CommandError):
    """The server refused.

    Attributes:
        reason: the code of its error.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, Exit.REFUSED)
        self.reason = reason


class ServedModels:
    """The models of a server.

    Args:
        client: of its HTTP.
        server: as it was given, for messages.
    """

    def __init__(self, client: httpx.Client, server: str) -> None:
        self._client = client
        self._server = server

    def __repr__(self) -> str:
        return f"<ServedModels of {self._server}>"

    def find(self, name: str) -> dict[str, Any] | None:
        """A model by its name or an alias, as the server lists it; None: it has none such.

        Raises:
            ConnectError: the server is not there, or is no llcuda-server.
            RefusedError: it does not answer.
        """
        for model in self._ask("GET", "/models")["data"]:
            if name == model["id"] or name in model.get("aliases", []):
                found: dict[str, Any] = model
                return found
        return None

    def change(self, what: str, name: str) -> None:
        """Have a model loaded or unloaded.

        Args:
            what: load or unload.

        Raises:
            ConnectError, RefusedError: as `find`.
        """
        self._ask("POST", f"/models/{what}", {"model": name})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import httpx

        try:
            answer = self._client.request(method, path, json=body)
            document = answer.json()
            if answer.status_code >= 400:
                error = document["error"]
                raise RefusedError(str(error["message"]), str(error["code"]))
        except httpx.TransportError as error:
            why = re.sub(r"^\[Errno [0-9]+\] ", "", str(error)).lower() or type(error).__name__
            raise ConnectError(
                f"cannot connect to {self._server}: {why}; is llcuda-server running there?"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ConnectError(f"{self._server} does not answer as llcuda-server does") from None
        return document


def add_options(parser: argparse.ArgumentParser, done: str) -> None:
    """The names, the server, and how it is told.

    Args:
        done: what is waited for, as in "until it is loaded".
    """
    parser.add_argument("names", metavar="NAME", nargs="+", help="a model of the server, or alias")
    parser.add_argument("--no-wait", action="store_true", help=f"do not wait until it is {done}")
    parser.add_argument("--json", action="store_true", help="one JSON object per model")
    server_options.add_group(parser)


def run_each(
    arguments: argparse.Namespace,
    work: Callable[[ServedModels, str], tuple[str, dict[str, Any]]],
    prog: str,
) -> int:
    """Do it for each name, also where it failed for one before; returns the exit code.

    Args:
        work: returns what has happened, for a person, and the same for programs.

    Raises:
        CommandError: it failed for the only one, or for some.
        ConnectError: the server is not there, or TLS fails.
        RequestError: the token is wrong.
    """
    dialler = server_options.Dialler(arguments)
    dialler().close()  # our own protocol knows best why a server cannot be reached
    failed = 0
    with dialler.http() as client:
        models = ServedModels(client, dialler.server)
        for name in arguments.names:
            try:
                said, event = work(models, name)
            except RefusedError as error:
                said, event = str(error), {"event": "failed", "message": str(error)}
                failed += 1
                if not arguments.json:
                    if len(arguments.names) == 1:
                        raise
                    print_error(prog, said)
                    continue
            echo(json.dumps({"model": name, **event}) if arguments.json else said, flush=True)
    if failed and len(arguments.names) > 1:
        fail(f"{failed} of {len(arguments.names)} failed", Exit.REFUSED)
    return Exit.REFUSED if failed else Exit.OK


def pause() -> None:
    """Until the next look."""
    time.sleep(_LOOK)
