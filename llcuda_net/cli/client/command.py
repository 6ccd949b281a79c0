"""`llcuda-client`: send prompts to an llcuda-server from a shell.

Only the standard library is imported before there is something to do, so that --help is instant.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.client.checks import check
from llcuda_net.cli.client.options import build_parser, prog, to_type
from llcuda_net.cli.client.request import read_media, read_prompt, read_request
from llcuda_net.cli.common import (
    Exit,
    Terminated,
    end_on_sigterm,
    fail,
    read_token,
    run_command,
)
from llcuda_net.cli.server_options import DEFAULT_SERVER
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.util.terminal import echo, is_terminal

if TYPE_CHECKING:
    from llcuda_net import sync
    from llcuda_net.cli.client.output import Output


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(prog(), lambda: _run(build_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    if sys.stdout is None:
        fail("standard output is closed: there is nowhere to print the answer")
    check(arguments)
    request: dict[str, Any] = {}
    text: str | None = None
    media: list[dict[str, Any]] = []
    lists = arguments.models or arguments.list is not None
    ids = (arguments.attach, arguments.cancel, arguments.delete)
    if ids == (None, None, None) and not lists:
        text = read_prompt(arguments)
        request = read_request(arguments)
        media = read_media(arguments)
    token = read_token(arguments.token_file)
    end_on_sigterm()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")

    from llcuda_net import sync
    from llcuda_net.cli.client.output import print_note

    def connect() -> sync.Client:
        server = arguments.server or os.environ.get("LLCUDA_SERVER") or DEFAULT_SERVER
        return sync.connect(
            server,
            tls=arguments.tls,
            tls_ca=arguments.tls_ca,
            token=token,
            reconnect=arguments.reconnect_seconds,
            on_note=lambda note: print_note(prog(), note),
        )

    if arguments.chat:
        from llcuda_net.cli.chat.start import start

        return start(
            arguments,
            connect,
            token,
            request,
            media,
            text,
            lambda: _output(arguments),
            lambda id_: _again(arguments, "--continue", id_, chat=True),
        )
    if lists:
        return _reporting(arguments, lambda: _list(connect, arguments))
    if arguments.raw:
        request["raw"] = text
    elif media:
        question = {"role": "user", "content": [*media, text]}
        request |= {"messages": [question], "system": arguments.system}
    else:
        request |= {"prompt": text, "system": arguments.system}
    if arguments.detach:
        return _reporting(arguments, lambda: _detach(connect, request, arguments))
    if arguments.cancel is not None:
        return _reporting(arguments, lambda: _cancel(connect, arguments))
    if arguments.delete is not None:
        return _reporting(arguments, lambda: _delete(connect, arguments))
    wanted = request if arguments.attach is None else None
    return _reporting(arguments, lambda: _answer(connect, wanted, arguments))


def _reporting(arguments: argparse.Namespace, body: Callable[[], int]) -> int:
    """Run a body; with --json a failure is also reported on stdout."""
    try:
        return body()
    except (RequestError, ConnectError) as error:
        if arguments.json:
            from llcuda_net.cli.client.json_output import print_json_error

            print_json_error(error)
        raise


def _output(arguments: argparse.Namespace) -> Output:
    """What shows one answer as the options say."""
    at_once = arguments.no_stream
    # On a terminal it is seen beside the answer; a file of notes or of answers is not for it.
    beside = is_terminal(sys.stdout) and is_terminal(sys.stderr)
    think = arguments.think == "show" or (arguments.think is None and beside)
    if arguments.certainty:
        from llcuda_net.cli.client.certainty_output import CertainJson, CertainText

        return CertainJson(at_once=at_once) if arguments.json else CertainText(think=think)
    if arguments.json:
        from llcuda_net.cli.client.json_output import JsonOutput

        return JsonOutput(at_once=at_once)
    from llcuda_net.cli.client.output import TextOutput

    return TextOutput(at_once=at_once, think=think)


def _answer(
    connect: Callable[[], sync.Client],
    request: dict[str, Any] | None,
    arguments: argparse.Namespace,
) -> int:
    """Print an answer: of a request, or (None) of --attach."""
    from llcuda_net.cli.client import limit
    from llcuda_net.cli.client.named import answer_id
    from llcuda_net.cli.client.output import print_note, show
    from llcuda_net.cli.client.stats import print_stats

    output = _output(arguments)
    details: dict[str, Any] = {"splices": True}
    if arguments.json:
        details |= {"tokens": True, "durable": True}
    at_once = arguments.no_stream or (arguments.certainty and not arguments.json)
    stream: sync.Stream | None = None
    with connect() as client:
        try:
            if request is None:
                id_ = answer_id(client, arguments.attach)
                stream = client.attach(id_, arguments.first or 0, **details)
            else:
                request |= _previous(client, arguments)
                stream = limit.generate(client, request, **details)
            first = stream.received
            with stream:
                if stream.cached:
                    print_note(prog(), "answered from the store")
                result = show(stream, output, stop=_how_to_stop(stream, arguments))
            if request is None and first and stream.received == first:
                # Nothing came. Of one that is over, the server says whether it has so many pieces.
                with client.attach(stream.id, first):
                    print_note(
                        prog(), f"the answer has {first} pieces: there is nothing after them"
                    )
        except ConnectError as error:
            if stream is None or "attach" not in client.features:
                raise
            seen = first if at_once else stream.received
            reason = f"{error}" if str(error).endswith("?") else f"{error};"
            again = _attach(stream, seen, arguments)
            raise ConnectError(f"{reason} read on with: {again}") from None
        except (KeyboardInterrupt, Terminated):
            if stream is not None and arguments.attach is not None:
                seen = first if at_once else stream.received
                print_note(
                    prog(),
                    f"stopped reading; read on with: {_attach(stream, seen, arguments)}; "
                    f"stop it with: {_again(arguments, '--cancel', stream.id)}",
                )
            raise
    if result.reason == "cancelled":
        print_note(prog(), "the answer was cancelled before its end")
    if (cut := limit.cut_line(request, result)) is not None:
        print_note(prog(), cut)
    if arguments.stats:
        print_stats(result)
    return Exit.OK


def _detach(
    connect: Callable[[], sync.Client], request: dict[str, Any], arguments: argparse.Namespace
) -> int:
    """Start an answer, print its id, and leave."""
    from llcuda_net.cli.client import limit

    with connect() as client:
        if "attach" not in client.features:
            flag = arguments.detach
            fail(f"the server is too old for {flag}: an answer ends with its reader", Exit.REFUSED)
        previous = _previous(client, arguments)
        with limit.generate(client, request, **previous) as stream:
            # First the id: if it cannot be printed, the answer is cancelled on the way out.
            if arguments.json:
                found = {"event": "detached", "id": stream.id, "level": stream.level}
                echo(json.dumps({**found, "cached": stream.cached, **previous}), flush=True)
            else:
                echo(stream.id, flush=True)
            stream.detach()
    return Exit.OK


def _previous(client: sync.Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """What --continue adds to a request."""
    if arguments.previous is None:
        return {}
    from llcuda_net.cli.client.named import previous_id

    return {"previous": previous_id(client, arguments.previous)}


def _cancel(connect: Callable[[], sync.Client], arguments: argparse.Namespace) -> int:
    """Stop an answer, and print how it ended."""
    from llcuda_net.cli.client.named import answer_id

    with connect() as client:
        id_ = answer_id(client, arguments.cancel, running=True)
        reason = client.cancel(id_)
    if arguments.json:
        found = {"event": "cancel", "id": id_, "reason": reason}
        echo(json.dumps(found), flush=True)
    else:
        echo("cancelled" if reason == "cancelled" else f"was over already: {reason}", flush=True)
    return Exit.OK


def _delete(connect: Callable[[], sync.Client], arguments: argparse.Namespace) -> int:
    """Delete what is stored of an answer."""
    from llcuda_net.cli.client.named import answer_id

    with connect() as client:
        id_ = answer_id(client, arguments.delete, running=False)
        client.delete(id_)
    if arguments.json:
        echo(json.dumps({"event": "delete", "id": id_}), flush=True)
    else:
        echo("deleted", flush=True)
    return Exit.OK


def _list(connect: Callable[[], sync.Client], arguments: argparse.Namespace) -> int:
    """Print the lists of --models or --list."""
    from llcuda_net.cli.client.lists import print_entries, print_models

    with connect() as client:
        if arguments.models:
            print_models(client.models(), as_json=arguments.json)
        else:
            print_entries(client.list(arguments.list), as_json=arguments.json)
    return Exit.OK


def _how_to_stop(stream: sync.Stream, arguments: argparse.Namespace) -> str:
    if arguments.attach is None:
        return "Ctrl-C stops it"
    return f"stop it with: {_again(arguments, '--cancel', stream.id)}"


def _attach(stream: sync.Stream, seen: int, arguments: argparse.Namespace) -> str:
    return _again(arguments, "--attach", stream.id, "--from", str(seen))


def _again(arguments: argparse.Namespace, *words: str, chat: bool = False) -> str:
    """A shell command to the same server; `chat`: one that talks with it."""
    command = to_type()
    if chat:
        command = prog().split() if prog().endswith(" chat") else [*command, "--chat"]
    for flag in ("server", "tls_ca", "token_file"):
        if (value := getattr(arguments, flag)) is not None:
            words += (f"--{flag.replace('_', '-')}", value)
    if arguments.tls:
        words += ("--tls",)
    return shlex.join([*command, *words])


if __name__ == "__main__":
    sys.exit(main())
