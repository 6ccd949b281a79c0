"""Files over HTTP: kept, listed, read, deleted; limits, and whose they are."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h11
import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.server.http.files.upload import LEFT_FREE
from llcuda_net.storage.objects import files
from llcuda_net.storage.objects.files import CHUNK
from llcuda_net.storage.storage import Storage
from tests.support.processes import PATIENCE
from tests.support.server.durable_server import keeping
from tests.support.server.forms import TYPE, field, file, form, upload, uploaded
from tests.support.server.memory_server import FakeUpstream, MemoryListener, serving
from tests.support.server.sse_client import send

DAY = 86_400


@asynccontextmanager
async def running(
    folder: Path, users: str | None = None, **settings: Any
) -> AsyncIterator[tuple[Storage, MemoryListener]]:
    known = None if users is None else Users.parse(users)
    async with keeping(folder, FakeUpstream(), users=known, **settings) as found:
        yield found


async def get(
    listener: MemoryListener,
    path: str = "",
    status: int = 200,
    *,
    method: str = "GET",
    token: str = "t",
) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    answer = await send(listener, method, f"/v1/files{path}", None, headers)
    found = await answer.json()
    assert answer.status == status, found
    return found


async def content(listener: MemoryListener, id_: str) -> bytes:
    answer = await send(listener, "GET", f"/v1/files/{id_}/content")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return await answer.body()


async def test_a_file_is_kept_and_is_there_after_a_restart(tmp_path: Path) -> None:
    data = bytes(i * 7 & 0xFF for i in range(6 * CHUNK + 11))
    async with running(tmp_path) as (_, listener):
        before = int(time.time())
        answer = await upload(listener, data, purpose="user_data", name="a ü.bin")
        kept = await answer.json()
        assert kept.pop("id").startswith("file-")
        assert before <= kept.pop("created_at") <= time.time()
        assert kept == {
            "object": "file",
            "bytes": len(data),
            "expires_at": None,
            "filename": "a ü.bin",
            "purpose": "user_data",
            "status": "processed",
            "status_details": None,
        }
    async with running(tmp_path) as (_, listener):
        (found,) = (await get(listener))["data"]
        assert await get(listener, f"/{found['id']}") == found
        assert await content(listener, found["id"]) == data


@pytest.mark.parametrize("size", [0, 1, CHUNK, 4 * CHUNK, 4 * CHUNK + 1])
async def test_files_of_all_sizes(tmp_path: Path, size: int) -> None:
    async with running(tmp_path) as (_, listener):
        id_ = await uploaded(listener, b"x" * size)
        assert await content(listener, id_) == b"x" * size


async def test_they_are_listed_in_pages(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, listener):
        assert await get(listener) == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }
        purposes = ["batch", "vision", "batch", "batch", "evals"]
        ids = [await uploaded(listener, b"", purpose=one) for one in purposes]
        page = await get(listener, "?limit=2")
        assert [one["id"] for one in page["data"]] == ids[:2:-1]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[4], ids[3], True)
        page = await get(listener, f"?limit=3&after={ids[3]}")
        assert [one["id"] for one in page["data"]] == ids[2::-1]
        assert not page["has_more"]
        page = await get(listener, f"?order=asc&purpose=batch&after={ids[0]}")
        assert [one["id"] for one in page["data"]] == ids[2:4]
        for wrong in (
            "?limit=0",
            "?limit=10001",
            "?limit=0000000010001",
            "?limit=x",
            "?order=up",
            "?porpoise=batch",
        ):
            await get(listener, wrong, 400)
        await get(listener, "?after=file-none", 404)


async def test_one_is_deleted(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, listener):
        id_ = await uploaded(listener, b"x")
        deleted = {"id": id_, "object": "file", "deleted": True}
        assert await get(listener, f"/{id_}", method="DELETE") == deleted
        for method in ("GET", "DELETE"):
            error = (await get(listener, f"/{id_}", 404, method=method))["error"]
            assert (error["code"], id_ in error["message"]) == ("file_not_found", True)
        await get(listener, f"/{id_}/content", 404)
        assert not (await get(listener))["data"]


async def test_when_they_expire(tmp_path: Path) -> None:
    async with running(tmp_path) as (storage, listener):
        life = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
        for fields, seconds in (({}, 30 * DAY), (life, 3600)):
            kept = await (await upload(listener, b"x", fields=fields)).json()
            assert kept["expires_at"] == kept["created_at"] + seconds
        await storage.objects.write(lambda db: db.run("UPDATE files SET expires = 1") and None)
        await get(listener, f"/{kept['id']}", 404)
        assert not (await get(listener))["data"]


@pytest.mark.parametrize(
    ("purpose", "fields", "why"),
    [
        ("fine tune", {}, "purpose must be one of batch, .*not 'fine tune'"),
        ("batch", {"expires_after[seconds]": "3600"}, "anchor"),
        (
            "batch",
            {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"},
            "must be created_at",
        ),
        (
            "batch",
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "number from 3600 to 2592000",
        ),
        (
            "batch",
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "0000036000000"},
            "number from 3600 to 2592000",
        ),
        ("batch", {"expires_after[anchor]": "created_at"}, "number from 3600 to 2592000"),
        ("batch", {"metadata": "x"}, "there is no field 'metadata'"),
    ],
)
async def test_wrong_fields_are_refused_and_nothing_is_kept(
    tmp_path: Path, purpose: str, fields: Mapping[str, str], why: str
) -> None:
    async with running(tmp_path) as (storage, listener):
        answer = await upload(listener, b"x" * 3 * CHUNK, purpose=purpose, fields=fields)
        error = (await answer.json())["error"]
        assert answer.status == 400
        assert re.search(why, error["message"]), error
        assert await storage.objects.read(lambda db: files.used(db, "")) == 0
        assert not (await get(listener))["data"]


async def test_the_largest_file(tmp_path: Path) -> None:
    async with running(tmp_path, max_file=10_000) as (_, listener):
        await uploaded(listener, b"x" * 10_000)
        for data in (b"x" * 10_001, b"x" * 1_000_000):
            answer = await upload(listener, data)
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (413, "file_too_large")
            assert "10,000 bytes" in error["message"]
        assert len((await get(listener))["data"]) == 1


USERS = "t name=ann files=100KB\nother name=bob\nops role=admin\n"


async def test_what_a_user_may_have(tmp_path: Path) -> None:
    ann = {"Authorization": "Bearer t"}
    async with running(tmp_path, USERS, max_user_files=1 << 20) as (_, listener):
        first = await uploaded(listener, b"x" * 90_000, headers=ann)
        last = await uploaded(listener, b"x" * 90_000, headers=ann)
        answer = await upload(listener, b"x", headers=ann)
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (429, "storage_quota_exceeded")
        assert "180,000 bytes, and may take 100,000" in error["message"]
        assert answer.headers["x-should-retry"] == "false"
        bob = {"Authorization": "Bearer other"}
        await uploaded(listener, b"x" * 900_000, headers=bob)
        for id_ in (first, last):
            await get(listener, f"/{id_}", method="DELETE")
        await uploaded(listener, b"x", headers=ann)
        # A long file is cut off while it comes, not at its end.
        answer = await upload(listener, b"x" * 40 * CHUNK, headers=bob)
        assert answer.status == 429


async def test_uploads_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [LEFT_FREE] * 3  # asked before an upload, and before each MiB
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=room.pop(0)))
    async with running(tmp_path) as (storage, listener):
        await uploaded(listener, b"x" * 8 * CHUNK)
        assert not room
        for room in ([LEFT_FREE, LEFT_FREE, LEFT_FREE - 1], [LEFT_FREE - 1]):
            answer = await upload(listener, b"x" * 8 * CHUNK)
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (503, "storage")
            assert "64 MiB of the disk free" in error["message"]
            assert "retry-after" in answer.headers
            assert not room
        assert await storage.objects.read(lambda db: files.used(db, "")) == 8 * CHUNK


async def test_files_of_others_do_not_exist(tmp_path: Path) -> None:
    async with running(tmp_path, USERS) as (_, listener):
        id_ = await uploaded(listener, b"x", headers={"Authorization": "Bearer t"})
        for path in (f"/{id_}", f"/{id_}/content", f"?after={id_}"):
            await get(listener, path, 404, token="other")
        await get(listener, f"/{id_}", 404, method="DELETE", token="other")
        assert not (await get(listener, token="other"))["data"]
        for token in ("t", "ops"):
            assert [one["id"] for one in (await get(listener, token=token))["data"]] == [id_]


async def _until_chunks(storage: Storage, *, some: bool) -> None:
    """Until there are chunks in the store, or none."""
    count = "SELECT count(*) FROM chunks"
    while some is not bool(await storage.objects.read(lambda db: db.value(count))):  # noqa: ASYNC110
        await trio.sleep(0.01)


async def test_an_upload_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (storage, listener):
        body = form(field("purpose", "batch"), file(b"x" * 8 * CHUNK))
        peer = listener.connect()
        head = f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPE}\r\n"
        await peer.stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        await peer.stream.send_all(body[: 7 * CHUNK])
        with trio.fail_after(PATIENCE):
            await _until_chunks(storage, some=True)
            assert await storage.objects.read(lambda db: files.used(db, "")) > 0
            await peer.stream.aclose()
            await _until_chunks(storage, some=False)
        assert await storage.objects.read(lambda db: files.used(db, "")) == 0
        assert listener.server.incoming.waiting == 0


async def test_what_was_uploading_when_the_server_ended_is_not_there(tmp_path: Path) -> None:
    async with running(tmp_path) as (storage, _):
        await storage.objects.write(lambda db: files.begin(db, "file-1", "", 1))
    async with running(tmp_path) as (storage, listener):
        assert await storage.objects.read(lambda db: files.used(db, "")) == 0
        assert not (await get(listener))["data"]


async def test_uploads_take_little_memory_and_count(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, listener):
        server = listener.server
        server.incoming.change("", 0, server.incoming.share - 1)
        answer = await upload(listener, b"x")
        assert answer.status == 429
        server.incoming.change("", server.incoming.share - 1, 0)
        assert (await upload(listener, b"x")).status == 200
        assert server.incoming.waiting == 0


async def test_a_damaged_file_ends_before_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as (storage, listener):
        id_ = await uploaded(listener, b"x" * 3 * CHUNK)
        spoil = "UPDATE chunks SET data = zeroblob(?) WHERE number = ?"
        await storage.objects.write(lambda db: db.run(spoil, (CHUNK, 2)) and None)
        answer = await send(listener, "GET", f"/v1/files/{id_}/content")
        with pytest.raises(h11.RemoteProtocolError):
            await answer.body()
        await storage.objects.write(lambda db: db.run(spoil, (CHUNK, 0)) and None)
        error = (await get(listener, f"/{id_}/content", 500))["error"]
        assert error["code"] == "damaged"


async def test_where_nothing_is_kept_it_is_said() -> None:
    async with serving(FakeUpstream()) as (_, listener):
        answer = await upload(listener, b"x" * 3 * CHUNK)
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (400, "unsupported")
        assert "--data-dir" in error["message"]
        assert (await get(listener, "", 400))["error"]["code"] == "unsupported"
