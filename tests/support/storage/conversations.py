"""What conversations are made of."""

from __future__ import annotations

from typing import Any


def item(id_: str, text: str = "") -> dict[str, Any]:
    """What a user said."""
    content = [{"type": "input_text", "text": text}] if text else []
    return {"id": id_, "type": "message", "role": "user", "content": content}
