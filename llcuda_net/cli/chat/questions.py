"""A question as text, changed in an editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from llcuda_net.cli.chat.talk import Message
from llcuda_net.cli.common import CommandError, Exit


def text_of(asked: list[Message]) -> str | None:
    """The words of a question; None: there is none, or it is what tools have returned."""
    said = [one["content"] for one in asked if one["role"] == "user"]
    if not said:
        return None
    parts = said[-1] if isinstance(said[-1], list) else [said[-1]]
    return "\n".join(_words(part) for part in parts if _words(part))


def with_text(asked: list[Message], text: str) -> list[Message]:
    """The question with other words, and its images."""
    before, last = asked[:-1], asked[-1]
    content = last["content"]
    if isinstance(content, list):
        content = [*(part for part in content if not _words(part)), text]
    else:
        content = text
    return [*before, {**last, "content": content}]


def edited(text: str) -> str | None:
    """The text as the user's editor leaves it; None: neither VISUAL nor EDITOR names one.

    Raises:
        CommandError: it cannot be started, or failed.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        return None
    descriptor, name = tempfile.mkstemp(suffix=".md", prefix="llcuda-")  # for its owner alone
    os.close(descriptor)
    file = Path(name)
    try:
        file.write_text(text, encoding="utf-8")
        try:
            code = subprocess.run([*shlex.split(editor), name], check=False).returncode
        except (OSError, ValueError) as error:
            raise CommandError(f"the editor {editor!r} does not start: {error}") from None
        if code:
            raise CommandError(f"the editor {editor!r} failed ({code})", Exit.REFUSED)
        return file.read_text(encoding="utf-8", errors="replace").strip()
    finally:
        with suppress(OSError):
            file.unlink()


def _words(part: Any) -> str:
    if isinstance(part, str):
        return part
    return str(part.get("text", "")) if part.get("type") == "text" else ""
