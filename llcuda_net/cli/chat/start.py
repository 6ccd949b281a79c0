"""A chat as the options of llcuda-client say."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from llcuda_net.cli.chat.api import ConversationApi
from llcuda_net.cli.chat.chat import Chat, Reader
from llcuda_net.cli.chat.commands import completions
from llcuda_net.cli.chat.prompt.plain import Lines
from llcuda_net.cli.chat.resume import Beginning
from llcuda_net.cli.client.options import prog
from llcuda_net.cli.client.output import Output, print_note
from llcuda_net.cli.server_options import DEFAULT_SERVER, http_client
from llcuda_net.sync import Client
from llcuda_net.util.terminal import is_clever, is_terminal


def start(
    arguments: argparse.Namespace,
    connect: Callable[[], Client],
    token: str | None,
    request: dict[str, Any],
    media: list[dict[str, Any]],
    text: str | None,
    make_output: Callable[[], Output],
    again: Callable[[str], str],
) -> int:
    """Talk until the end; returns the exit code.

    Args:
        request: what goes with every request.
        text: the first question; None: it is typed.
        make_output: what shows an answer where it is no terminal.
        again: the command that goes on with a conversation, by its id.

    Raises:
        what `Chat.run` raises.
    """
    interactive = is_terminal(sys.stdin)
    server = arguments.server or os.environ.get("LLCUDA_SERVER") or DEFAULT_SERVER
    client: Client | None = None

    def dial() -> Client:
        nonlocal client
        client = connect()
        return client

    api = ConversationApi(
        lambda: http_client(
            client.server if client is not None else server, arguments.tls, arguments.tls_ca, token
        ),
        arguments.reconnect_seconds,
        lambda why: print_note(prog(), f"{why}; it is asked again (Ctrl-C ends that)"),
    )
    stores = request.get("level") != "memory"
    beginning = Beginning(
        api,
        request,
        arguments.previous,
        # What ends with its reader is no response in the background.
        keeps=interactive and stores and request.get("on_disconnect") in (None, "continue"),
        tell=lambda why: print_note(prog(), why),
    )
    models: list[str] = []
    chat = Chat(
        prog(),
        dial,
        request,
        _reader(models, stores=stores) if interactive else Lines(),
        _terminal_output(arguments, make_output),
        beginning,
        system=arguments.system,
        media=media,
        again=again,
        stats=arguments.stats,
        models=models,
    )
    return chat.run(text)


def _reader(models: list[str], *, stores: bool) -> Reader:
    """A line editor, where the terminal can have one."""
    if not (is_clever(sys.stdin) and (is_clever(sys.stdout) or is_clever(sys.stderr))):
        return Lines()
    from llcuda_net.cli.chat.prompt.editor import Editor
    from llcuda_net.cli.chat.prompt.history import ChatHistory, default_path

    # Of what is not to be stored, nothing is stored here.
    history = ChatHistory(default_path() if stores else None)
    return Editor(history, lambda begun: completions(begun, models))


def _terminal_output(
    arguments: argparse.Namespace, make_output: Callable[[], Output]
) -> Callable[[], Output]:
    if arguments.certainty or arguments.no_stream or not is_clever(sys.stdout):
        return make_output
    from llcuda_net.cli.chat.screen.output import TerminalOutput

    beside = is_terminal(sys.stderr)
    think = arguments.think == "show" or (arguments.think is None and beside)
    return lambda: TerminalOutput(think=think)
