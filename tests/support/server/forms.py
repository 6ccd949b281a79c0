"""Uploads as clients send them: multipart/form-data, written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.server.memory_server import MemoryListener
from tests.support.server.sse_client import Reply, send

BOUNDARY = "a-boundary"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def field(name: str, value: str) -> bytes:
    """One field of a form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{value}\r\n".encode()


def file(data: bytes, name: str = "lines.jsonl") -> bytes:
    """The file of a form."""
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def upload(
    listener: MemoryListener,
    data: bytes,
    *,
    purpose: str = "batch",
    name: str = "lines.jsonl",
    headers: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
) -> Reply:
    """Upload a file."""
    parts = [field("purpose", purpose), *(field(*one) for one in (fields or {}).items())]
    body = form(*parts, file(data, name))
    return await send(
        listener, "POST", "/v1/files", body, {"Content-Type": TYPE, **(headers or {})}
    )


async def uploaded(listener: MemoryListener, data: bytes, **options: Any) -> str:
    """Upload a file; its id."""
    answer = await upload(listener, data, **options)
    found = await answer.json()
    assert answer.status == 200, found
    return str(found["id"])
