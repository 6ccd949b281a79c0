"""What the options of llcuda-client ask to be sent: a prompt, its media, and what goes along.

Only the standard library is imported before there is something to read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from llcuda_net.cli.client.options import prog
from llcuda_net.cli.common import check_text, fail
from llcuda_net.errors import InvalidRequest
from llcuda_net.util.text_files import decode, read_text

#: Candidates per token with --certainty, where --n-probs is not given.
_N_PROBS = 10
#: What --param may set beside sampling parameters, though they go with a chat only.
_OF_A_CHAT = (
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "reasoning_effort",
)


def read_prompt(arguments: argparse.Namespace) -> str | None:
    """The text to send; None where a chat begins without one.

    Raises:
        ConfigError: it cannot be read.
        CommandError: there is none.
    """
    if arguments.file is not None:
        text = read_text(arguments.file, "file")
        source = f"file {arguments.file}"
    elif arguments.prompt == ["-"]:
        if sys.stdin is None:
            fail("standard input is closed")
        text = decode(sys.stdin.buffer.read(), "standard input")
        source = "standard input"
    elif arguments.prompt:
        text = check_text(arguments.prompt[0], "the prompt")
        source = "prompt"
    elif arguments.chat:
        return None
    else:
        fail(f"nothing to send: give a prompt, -, --file or --chat (see {prog()} --help)")
    if not text.strip():
        fail(f"the {source} is empty: there is nothing to send")
    return text


def read_request(arguments: argparse.Namespace) -> dict[str, Any]:
    """What goes with every request: policies, and sampling parameters by llama-server's names.

    Raises:
        ConfigError: a file cannot be read.
        CommandError: a file is not JSON, or a parameter cannot be set so.
    """
    names = ("n_predict", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
    given = {name: getattr(arguments, name) for name in (*names, "n_probs", "stop")}
    if arguments.certainty:
        given["n_probs"] = arguments.n_probs or _N_PROBS
    if arguments.grammar is not None:
        given["grammar"] = read_text(arguments.grammar, "grammar")
    if arguments.json_schema is not None:
        try:
            given["json_schema"] = json.loads(read_text(arguments.json_schema, "JSON schema"))
        except (ValueError, RecursionError) as error:
            fail(f"JSON schema {arguments.json_schema} is not JSON: {error}")
    given |= {
        "timeout": arguments.timeout,
        "key": arguments.idempotency_key,
        "on_disconnect": "continue" if arguments.detach else arguments.on_disconnect,
        "level": "memory" if arguments.store == "none" else arguments.durability,
        "cache": arguments.cache or None,
        "model": arguments.model,
        "priority": arguments.priority,
        "deadline": arguments.deadline,
    }
    if arguments.tools is not None:
        given["tools"] = _read_tools(arguments.tools)
    reserved = {"self", "prompt", "raw", "messages", "system", "timeout", "tokens"}
    reserved |= {"key", "on_disconnect", "level", "cache", "durable", "model", "priority"}
    reserved |= {"deadline", "splices", "images", "audio", "tools", "previous", "background"}
    for name, value in arguments.param:
        if name in reserved:
            fail(f"--param cannot set {name}")
        if arguments.raw and name in _OF_A_CHAT:
            fail(f"--param {name} goes with a chat template, which --raw leaves out")
        given[name] = value
    return {name: value for name, value in given.items() if value is not None}


def read_media(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The parts of --image and --audio, in this order.

    Raises:
        ConfigError: a file cannot be read, or is none.
    """
    if not (arguments.image or arguments.audio):
        return []
    from llcuda_net.client.chat.parts import audio, image

    # A file of any name: never a URL.
    images = [image(Path(name)) for name in arguments.image]
    return images + [audio(Path(name)) for name in arguments.audio]


def _read_tools(path: str) -> list[dict[str, Any]]:
    """The tools in a file, checked here so that an error names it."""
    from llcuda_net.client.chat.options import tool_list

    try:
        return tool_list(json.loads(read_text(path, "tools")))
    except InvalidRequest as error:
        fail(f"tools {path}: {error}")
    except (ValueError, RecursionError) as error:
        fail(f"tools {path} are not JSON: {error}")
