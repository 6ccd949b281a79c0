"""A file as clients see it."""

from __future__ import annotations

from typing import Any

from llcuda_net.server.http.errors import HttpError
from llcuda_net.storage.objects.files import File


def view(file: File) -> dict[str, Any]:
    """A file as JSON values; times are in seconds since 1970."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created // 10**9,
        "expires_at": None if file.expires is None else file.expires // 10**9,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def no_file(id_: str, param: str | None = None) -> HttpError:
    """The answer where there is no such file, or it is somebody else's.

    Args:
        param: the field that names it.
    """
    return HttpError(
        404, f"there is no file {id_[:80]!r} of yours", param=param, code="file_not_found"
    )
