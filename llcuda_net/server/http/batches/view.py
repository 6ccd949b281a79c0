"""A batch as clients see it."""

from __future__ import annotations

from typing import Any

from llcuda_net.server.http.errors import HttpError
from llcuda_net.storage.objects import batches
from llcuda_net.storage.objects.batches import Batch

#: The states that a client is told the times of.
_TIMES = (
    batches.IN_PROGRESS,
    batches.FINALIZING,
    batches.COMPLETED,
    batches.FAILED,
    batches.EXPIRED,
    batches.CANCELLING,
    batches.CANCELLED,
)


def view(batch: Batch) -> dict[str, Any]:
    """A batch as JSON values; times are in seconds since 1970."""
    details = batch.details
    times = {
        f"{state}_at": details.times[state] // 10**9 if state in details.times else None
        for state in _TIMES
    }
    errors = {"object": "list", "data": details.errors} if details.errors else None
    used = batch.input_tokens + batch.output_tokens
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": batch.input_id,
        "completion_window": details.window,
        "status": batch.state,
        "output_file_id": batch.output,
        "error_file_id": batch.error,
        "created_at": batch.created // 10**9,
        "expires_at": batch.expires // 10**9,
        **times,
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": {
            "input_tokens": batch.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": batch.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used,
        },
        "metadata": details.metadata,
    }


def no_batch(id_: str, param: str | None = None) -> HttpError:
    """The answer where there is no such batch, or it is somebody else's.

    Args:
        param: the field that names it.
    """
    return HttpError(
        404, f"there is no batch {id_[:80]!r} of yours", param=param, code="batch_not_found"
    )
