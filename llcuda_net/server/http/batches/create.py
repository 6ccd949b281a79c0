"""POST /v1/batches: what a batch may be, and when a client asks for the same one again."""

from __future__ import annotations

import re
import time
from typing import Annotated, Literal

import msgspec
import structlog
from msgspec import Meta

from llcuda_net.errors import KeyConflict
from llcuda_net.server.http.batches.view import view
from llcuda_net.server.http.delivery.leaving import is_retry
from llcuda_net.server.http.errors import RATE_LIMIT, HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.files.quota import check_quota, quota_of
from llcuda_net.server.http.files.upload import LEAST_LIFE, MOST_LIFE
from llcuda_net.server.http.files.view import no_file
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import convert, wrong
from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.batches import Batch, Details
from llcuda_net.storage.objects.interface import Database
from llcuda_net.util.time_ids import uuid7

log = structlog.get_logger(__name__)

#: The paths whose requests may be in a batch, where the server has them.
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
#: Batches of a user that are not over, at most.
MOST_OPEN = 100
#: Hours of the longest window.
MOST_HOURS = 30 * 24
#: Seconds for which the retry of an SDK means the batch that it has made.
_SAME = 60.0
_WINDOW = re.compile(r"\A([1-9][0-9]{0,2})([hd])\Z")
_MOST_KEY = 200

_Key = Annotated[str, Meta(min_length=1, max_length=64)]
_Value = Annotated[str, Meta(max_length=512)]


class OutputExpiry(msgspec.Struct, forbid_unknown_fields=True):
    """When the files of a batch expire."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=LEAST_LIFE, le=MOST_LIFE)]


class BatchBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/batches."""

    input_file_id: Annotated[str, Meta(max_length=100)]
    endpoint: str
    completion_window: Annotated[str, Meta(pattern="^[1-9][0-9]{0,2}[hd]$")]
    metadata: Annotated[dict[_Key, _Value], Meta(max_length=16)] | None = None
    output_expires_after: OutputExpiry | None = None


async def create(exchange: Exchange) -> None:
    """Make a batch of the requests in a file."""
    request, host = exchange.request, exchange.host
    body = await strict_json.read(request.body, lambda data: convert(data, BatchBody))
    exchange.drop_body()
    if body.endpoint not in host.batch_endpoints:
        known = ", ".join(host.batch_endpoints)
        raise wrong("endpoint", f"endpoint must be one of {known}, not {body.endpoint[:60]!r}")
    hours = _hours(body.completion_window)
    key = _key_of(request.headers.get("idempotency-key"))
    owner = request.user.name
    quota = quota_of(request.user, host.settings.max_user_files)
    again = is_retry(request.headers)
    id_, now = f"batch_{uuid7().replace('-', '')}", time.time_ns()
    details = Details(body.completion_window, body.metadata, _life(body))

    def make(db: Database) -> Batch:
        db.alone(f"batches of {owner}")
        before = _made_before(db, body, owner, key, now if again else None)
        if before is not None:
            return before
        file = files.find(db, body.input_file_id, owner, now, to_use=True)
        if file is None:
            raise no_file(body.input_file_id, "input_file_id")
        if file.purpose != "batch":
            raise wrong("input_file_id", f"the file was uploaded for {file.purpose}, not for batch")
        if len(batches.unfinished(db, owner)) >= MOST_OPEN:
            raise HttpError(
                429,
                f"you have {MOST_OPEN} batches that are not over: wait, or cancel some",
                type=RATE_LIMIT,
                code="too_many_batches",
                headers={"x-should-retry": "false"},
            )
        check_quota(db, owner, quota)  # its output takes room, too
        return batches.create(
            db,
            id_,
            file,
            owner=owner,
            endpoint=body.endpoint,
            details=details,
            created=now,
            expires=now + hours * 3600 * 10**9,
            key=key,
        )

    batch = await host.objects.write(make)
    if batch.id == id_:
        host.wake_batches()
        log.info("batch_made", batch=id_, endpoint=body.endpoint, user=owner)
    exchange.respond(200, msgspec.json.encode(view(batch)))


def _made_before(
    db: Database, body: BatchBody, owner: str, key: str | None, retried: int | None
) -> Batch | None:
    """The batch that this request has made before: nothing is to be asked twice.

    Args:
        retried: the time, where an SDK says that it sends its request again.

    Raises:
        KeyConflict: the key means another one.
    """
    if key is not None:
        found = batches.by_key(db, key, owner)
        if found is not None and not _same(found, body):
            raise KeyConflict("the Idempotency-Key was given to another batch")
        return found
    if retried is None:
        return None
    newest = batches.listed(db, owner, limit=1)
    if newest and _same(newest[0], body) and retried - newest[0].created < _SAME * 1e9:
        return newest[0]
    return None


def _same(batch: Batch, body: BatchBody) -> bool:
    asked = (body.input_file_id, body.endpoint, body.completion_window, body.metadata)
    details = batch.details
    made = (batch.input_id, batch.endpoint, details.window, details.metadata)
    return asked == made and _life(body) == details.output_life


def _life(body: BatchBody) -> int | None:
    """Nanoseconds after which its output expires; None: never."""
    expiry = body.output_expires_after
    return None if expiry is None else expiry.seconds * 10**9


def _hours(window: str) -> int:
    found = _WINDOW.match(window)
    assert found is not None
    hours = int(found[1]) * (24 if found[2] == "d" else 1)
    if hours > MOST_HOURS:
        raise wrong("completion_window", f"completion_window is at most {MOST_HOURS // 24}d")
    return hours


def _key_of(given: str | None) -> str | None:
    if given is None:
        return None
    key = given.strip()
    if not key or len(key) > _MOST_KEY or not key.isprintable():
        raise wrong(None, f"Idempotency-Key has 1 to {_MOST_KEY} printable characters")
    return key
