"""What a chat does beside asking: lines that begin with a slash."""

from __future__ import annotations

from dataclasses import dataclass

from llcuda_net.cli.common import nearest


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        takes: what comes behind its name, for the help.
        help: one line.
    """

    takes: str
    help: str


COMMANDS = {
    "/model": Command("[NAME]", "list the models, or ask this one from now on"),
    "/retry": Command("", "answer the last question again, beside the answer that there is"),
    "/edit": Command("", "change the last question, in $VISUAL or $EDITOR or here, and ask it"),
    "/system": Command("[TEXT]", "set the system message; no text: take it away"),
    "/image": Command("FILE", "send an image with the next question"),
    "/tokens": Command("", "how much of the context the conversation takes"),
    "/save": Command("FILE", "write it as Markdown, or as JSON where FILE ends so"),
    "/clear": Command("", "begin another conversation"),
    "/help": Command("", "this list"),
    "/quit": Command("", "end; so do Ctrl-D, and Ctrl-C twice"),
}
#: Other names of commands.
ALIASES = {"/exit": "/quit", "/new": "/clear", "/?": "/help"}
_KEYS = {
    "Alt+Enter": 'begin a line; so does Enter behind \\, or within """ … """',
    "Ctrl-C": "stop the answer; what came of it stays",
    "Tab": "complete a command",
    "//…": "ask something that begins with a slash",
}


def help_text() -> str:
    """All commands and keys."""
    rows = [(f"{name} {one.takes}".strip(), one.help) for name, one in COMMANDS.items()]
    rows += _KEYS.items()
    return "\n".join(f"{name:<15} {text}" for name, text in rows)


def known(name: str) -> str | None:
    """The command of a name; None: there is none."""
    name = ALIASES.get(name, name)
    return name if name in COMMANDS else None


def unknown(name: str) -> str:
    """What to say of a name that is none."""
    near = nearest(name, (*COMMANDS, *ALIASES))
    meant = f": did you mean {near}?" if near else ";"
    return f"there is no command {name}{meant} /help lists them"


def completions(begun: str, models: list[str]) -> list[str]:
    """Lines that may be meant by the beginning of one."""
    if begun.startswith("/model "):
        return [f"/model {name}" for name in models]
    return [f"{name} " if one.takes else name for name, one in COMMANDS.items()]
