"""Files and batches of OpenAI's SDK for Python against a real server."""

from __future__ import annotations

import io
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from tests.support.processes import RunningServer, running_server
from tests.support.server.durable_server import stored

PATIENCE = 300.0


def client_of(server: RunningServer) -> OpenAI:
    return OpenAI(
        base_url=f"http://{server.address}/v1", api_key="any", max_retries=0, timeout=PATIENCE
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def client(folder: Path) -> Iterator[OpenAI]:
    with (
        running_server("--data-dir", str(folder), "--max-file", "40MiB") as server,
        client_of(server) as client,
    ):
        yield client


def test_a_file_from_its_upload_to_its_end(client: OpenAI) -> None:
    data = random.Random(1).randbytes(3_000_000)
    kept = client.files.create(
        file=("data.bin", io.BytesIO(data)),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert (kept.bytes, kept.filename, kept.purpose) == (len(data), "data.bin", "user_data")
    assert kept.expires_at == kept.created_at + 7200
    assert client.files.retrieve(kept.id) == kept
    assert client.files.content(kept.id).read() == data
    client.files.create(file=b"[]", purpose="batch")
    assert kept.id in [one.id for one in client.files.list(limit=1)]
    assert [one.id for one in client.files.list(purpose="user_data")] == [kept.id]
    assert client.files.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.content(kept.id)
    assert caught.value.code == "file_not_found"


def test_a_large_file_is_never_whole_in_memory(folder: Path) -> None:
    data = os.urandom(1 << 20) * 64
    options = ("--data-dir", str(folder), "--max-file", "64MiB", "--memory-limit", "128MiB")
    with running_server(*options) as server, client_of(server) as client:
        kept = client.files.create(file=("large", data), purpose="user_data")
        assert client.files.content(kept.id).read() == data
        assert server.process.pid
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0])
        assert peak << 10 < 160 << 20
        with pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=("larger", data + b"x"), purpose="user_data")
        assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")
        client.files.delete(kept.id)


# -- batches --------------------------------------------------------------------------------------

LINES = 60
CHAT: Final = "/v1/chat/completions"


def chats(count: int) -> bytes:
    found = b""
    for number in range(count):
        body = {
            "messages": [{"role": "user", "content": f"Say number {number}"}],
            "max_tokens": 30,
        }
        line = {"custom_id": f"line {number}", "method": "POST", "url": CHAT, "body": body}
        found += json.dumps(line).encode() + b"\n"
    return found


def polled(client: OpenAI, batch: Batch, until: Callable[[Batch], bool]) -> Batch:
    deadline = time.monotonic() + PATIENCE
    while not until(batch):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def is_over(batch: Batch) -> bool:
    return batch.status in ("completed", "failed", "expired", "cancelled")


def test_a_batch_over_two_kills(tmp_path: Path) -> None:
    """Each line is asked once, and is in the output once."""
    batch: Batch | None = None
    for killed_after in (10, 30, None):
        with (
            running_server("--data-dir", str(tmp_path)) as server,
            client_of(server) as client,
        ):
            if batch is None:
                file = client.files.create(file=("in.jsonl", chats(LINES)), purpose="batch")
                batch = client.batches.create(
                    input_file_id=file.id,
                    endpoint=CHAT,
                    completion_window="24h",
                    metadata={"kind": "test"},
                )
            if killed_after is not None:
                most = killed_after
                polled(client, batch, lambda one: done(one) >= most)  # noqa: B023
                server.process.kill()
                server.process.wait()
                continue
            batch = polled(client, batch, is_over)
            assert (batch.status, batch.metadata) == ("completed", {"kind": "test"})
            assert batch.error_file_id is None
            assert batch.output_file_id is not None
            text = client.files.content(batch.output_file_id).text
            found = [json.loads(line) for line in text.splitlines()]
            assert [one["custom_id"] for one in found] == [f"line {n}" for n in range(LINES)]
            named = [one["response"]["body"]["llcuda"]["generation"] for one in found]
            assert len(set(named)) == LINES
            assert [one.id for one in client.batches.list(limit=5)] == [batch.id]
    results = stored(tmp_path)
    assert len(results) == LINES
    assert {one.id for one in results} == set(named)
    assert {one.state for one in results} == {"done"}


def done(batch: Batch) -> int:
    assert batch.request_counts is not None
    return batch.request_counts.completed


def test_a_batch_that_is_wrong_and_one_that_is_cancelled(client: OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", chats(1) * 2 + b"{}"), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    batch = polled(client, batch, is_over)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(one.line, one.code) for one in batch.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "missing_required_parameter"),
    ]
    file = client.files.create(file=("in.jsonl", chats(500)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    polled(client, batch, lambda one: done(one) > 0)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = polled(client, batch, is_over)
    assert batch.status == "cancelled"
    assert batch.request_counts is not None
    assert batch.request_counts.total == 500
    assert 0 < batch.request_counts.completed < 500
