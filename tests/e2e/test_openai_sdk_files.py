"""Files of OpenAI's SDK for Python against a real server."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from tests.support.processes import RunningServer, running_server

PATIENCE = 60.0


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
