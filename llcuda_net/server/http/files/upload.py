"""POST /v1/files: the body goes to the disk as it comes, a few chunks at a time."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import msgspec
import structlog
import trio

from llcuda_net.errors import RequestError, StorageError
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.files.form import FILE, Form
from llcuda_net.server.http.files.quota import check_quota, quota_of
from llcuda_net.server.http.files.view import view
from llcuda_net.server.http.request import is_number
from llcuda_net.server.objects import AT_ONCE, FileWriter
from llcuda_net.storage.objects import files
from llcuda_net.storage.objects.interface import Database
from llcuda_net.util.time_ids import uuid7

log = structlog.get_logger(__name__)

#: What a file may be for. Only `batch` means anything here.
PURPOSES = ("batch", "assistants", "user_data", "vision", "fine-tune", "evals")
#: Seconds after which a file may expire, and does where it is for a batch and nothing else is said.
LEAST_LIFE, MOST_LIFE = 3600, 30 * 86_400
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FIELDS = ("purpose", _ANCHOR, _SECONDS)
#: Bytes that an upload has in memory at most.
_HELD = 2 * AT_ONCE
#: Bytes of a form beside its file.
_AROUND = 64 << 10
#: Bytes of the disk that uploads leave free: answers need room, and so does SQLite to remove files.
LEFT_FREE = 64 << 20


async def upload(exchange: Exchange) -> None:
    """Keep a file."""
    request, host = exchange.request, exchange.host
    form = Form(request.headers.get("content-type") or "", FIELDS)
    most = host.settings.max_file
    too_large = HttpError(
        413,
        f"a file may have {most:,} bytes here (--max-file)",
        param=FILE,
        code="file_too_large",
    )
    owner = request.user.name
    quota = quota_of(request.user, host.settings.max_user_files)
    id_, now = f"file-{uuid7().replace('-', '')}", time.time_ns()

    def check(db: Database) -> None:
        check_quota(db, owner, quota)
        if db.folder is not None:
            _check_disk(db.folder)

    def begin(db: Database) -> int:
        check(db)
        return files.begin(db, id_, owner, now)

    host.incoming.change(owner, 0, _HELD)
    try:
        seq = await host.objects.write(begin)
        try:
            # Before a write, so that a file may go a little too far, and is not refused at its end.
            pieces = FileWriter(host.objects, seq, check)

            async def take(data: bytes) -> None:
                for contents in form.feed(data):
                    if pieces.size + len(contents) > most:
                        raise too_large
                    await pieces.add(contents)

            await exchange.receive(take, most + _AROUND, too_large)
            form.close()
            purpose, life = _checked(form.fields)
            expires = None if life is None else now + life * 10**9
            name = form.name or ""
            await pieces.flush()
            file = await host.objects.write(
                lambda db: files.finish(db, seq, purpose=purpose, name=name, expires=expires)
            )
        except BaseException:
            with trio.CancelScope(shield=True), contextlib.suppress(RequestError):
                await host.objects.write(lambda db: files.discard(db, seq))
            host.objects.wake()
            raise
    finally:
        host.incoming.change(owner, _HELD, 0)
    log.info("file_kept", file=file.id, bytes=file.bytes, user=owner)
    exchange.respond(200, msgspec.json.encode(view(file)))


def _check_disk(folder: Path) -> None:
    """Refuse what would fill the disk.

    Raises:
        StorageError: there is only as much room as uploads leave.
    """
    if shutil.disk_usage(folder).free < LEFT_FREE:
        raise StorageError(
            f"uploads leave {LEFT_FREE >> 20} MiB of the disk free: free some disk space, or delete"
            " files",
            StorageError.FULL,
        )


def _checked(fields: dict[str, str]) -> tuple[str, int | None]:
    """The purpose, and the seconds after which the file is deleted; None: it is kept.

    Raises:
        HttpError: a field is wrong.
    """
    purpose = fields.get("purpose")
    if purpose not in PURPOSES:
        given = "missing" if purpose is None else f"not {purpose[:60]!r}"
        raise _wrong("purpose", f"purpose must be one of {', '.join(PURPOSES)}; it is {given}")
    if _ANCHOR not in fields and _SECONDS not in fields:
        return purpose, MOST_LIFE if purpose == "batch" else None
    if fields.get(_ANCHOR) != "created_at":
        raise _wrong(_ANCHOR, f"{_ANCHOR} must be created_at")
    text = fields.get(_SECONDS, "")
    if not (is_number(text) and LEAST_LIFE <= int(text) <= MOST_LIFE):
        raise _wrong(_SECONDS, f"{_SECONDS} must be a number from {LEAST_LIFE} to {MOST_LIFE}")
    return purpose, int(text)


def _wrong(param: str, message: str) -> HttpError:
    return HttpError(400, message, param=param, code="invalid_request")
