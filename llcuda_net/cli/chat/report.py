"""What a chat says about itself: its models, its tokens, and all of it as a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llcuda_net.cli.chat.questions import text_of
from llcuda_net.cli.chat.talk import LocalTalk, Message, Talk
from llcuda_net.cli.common import CommandError, nearest
from llcuda_net.cli.tables import table

_HEADS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def model_lines(models: list[dict[str, Any]], now: str | None) -> list[str]:
    """The models of a server, and which is asked."""
    if not models:
        return ["the server has no model now"]
    rows = [
        (
            str(one.get("name", "?")),
            *(str(one.get(key, "?")) for key in ("slots", "free", "context")),
            "this one" if one.get("name") == now else "",
        )
        for one in models
    ]
    heads = ("MODEL", "SLOTS", "FREE", "CONTEXT", "ASKED")
    return [*table(heads, rows, right=frozenset({1, 2, 3}), file=sys.stderr)]


def no_model(name: str, names: list[str]) -> str:
    """What to say of a name that no model has."""
    near = nearest(name, names)
    meant = f": did you mean {near}?" if near else "; /model lists them"
    return f"the server has no model {name}{meant}"


def token_lines(used: int, models: list[dict[str, Any]], model: str | None) -> list[str]:
    """How many tokens a conversation takes, and how many there are.

    Args:
        used: of the last prompt and its answer.
        model: which is asked; None: the server's default.
    """
    context = next(
        (
            one.get("context")
            for one in models
            if one.get("name") == model or (model is None and one.get("default"))
        ),
        None,
    )
    said = f"the conversation takes {used:,} token{'' if used == 1 else 's'}"
    if not context:
        return [f"{said}; how many fit is not known"]
    left = max(0, context - used)
    return [f"{said} of {context:,}: {left:,} left ({100 * left // context} %)"]


def save(name: str, talk: Talk) -> str:
    """Write the conversation into a new file; returns what was done, in words.

    Raises:
        CommandError: there is nothing to write, or the file is there already.
        OSError: it cannot be written.
        ConnectError, RequestError: the server, which has it, does not give it.
    """
    if not name:
        raise CommandError("/save FILE: say where, as in /save talk.md or /save talk.json")
    path = Path(name).expanduser()
    form = "json" if path.suffix.lower() == ".json" else "markdown"
    data = talk.document(form)
    if data is None and isinstance(talk, LocalTalk) and talk.history:
        write = _json if form == "json" else _markdown
        data = write(talk.history).encode("utf-8", "replace")
    if not data:
        raise CommandError("there is nothing to save yet")
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise CommandError(f"{path} is there already: give another name") from None
    return f"written to {path}"


def _json(messages: list[Message]) -> str:
    return json.dumps({"messages": messages}, ensure_ascii=False, indent=2) + "\n"


def _markdown(messages: list[Message]) -> str:
    parts = []
    for message in messages:
        parts.append(f"## {_HEADS.get(message['role'], message['role'])}")
        content = message.get("content")
        words = text_of([{**message, "role": "user"}]) if content else ""
        parts.append((words or "").rstrip("\n"))
    return "\n\n".join(part for part in parts if part) + "\n"
