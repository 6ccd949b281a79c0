"""Which model it is: what is asked, what is read, and that nobody waits for it."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.upstream.interface import Properties
from llcuda_net.upstream.model import fingerprint as module
from llcuda_net.upstream.model.fingerprint import (
    CACHE,
    Fingerprint,
    plain_fingerprint,
    same_model,
)
from tests.support.server.memory_server import FakeUpstream
from tests.support.upstream.tiny_model import write_tiny_model

#: Seconds, of a clock that runs: threads are waited for. A bound for hangs only.
PATIENCE = 300.0


class Upstream(FakeUpstream):
    def __init__(self, path: str = "", url: str = "http://127.0.0.1:8080") -> None:
        super().__init__()
        self.properties = Properties("m", 4, 512, True, "b1", path=path)
        self.base_url = url


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every hash that was computed, not remembered."""
    seen: list[str] = []
    computed = module._computed

    def note(facts: Any) -> str:
        seen.append(computed(facts))
        return seen[-1]

    monkeypatch.setattr(module, "_computed", note)
    return seen


@asynccontextmanager
async def running(fingerprint: Fingerprint) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(fingerprint.run)
        yield
        nursery.cancel_scope.cancel()


async def until(fingerprint: Fingerprint, key: str) -> dict[str, Any]:
    with trio.fail_after(PATIENCE):
        while key not in (found := fingerprint()):  # noqa: ASYNC110 - it calls nobody back
            await trio.sleep(0.01)
    return found


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def expected(path: Path) -> dict[str, Any]:
    return {
        "name": "m",
        "build": "b1",
        "context": 512,
        "hash": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
        "quantisation": "F32",
    }


PLAIN = {"name": "m", "build": "b1", "context": 512}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1/x", "http://[::1]:1"])
async def test_a_file_on_this_machine_is_read(url: str, tiny: Path, tmp_path: Path) -> None:
    fingerprint = Fingerprint(Upstream(str(tiny), url), tmp_path)
    assert fingerprint() == PLAIN
    async with running(fingerprint):
        assert await until(fingerprint, "hash") == expected(tiny)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("{tiny}", "http://10.0.0.1:8080"),
        ("{tiny}", "http://example.org"),
        ("tiny.gguf", "http://127.0.0.1:1"),
        ("", "http://127.0.0.1:1"),
        ("/nowhere/tiny.gguf", "http://127.0.0.1:1"),
        ("/etc/hostname", "http://127.0.0.1:1"),
    ],
)
async def test_what_is_elsewhere_or_no_model_is_not_read(
    path: str, url: str, tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    fingerprint = Fingerprint(Upstream(path.format(tiny=tiny), url), tmp_path)
    async with running(fingerprint):
        await wait_all_tasks_blocked(0.05)
        assert fingerprint() == PLAIN
    assert hashed == []


async def test_the_file_of_our_own_engine_is_known_without_being_told(
    tiny: Path, tmp_path: Path
) -> None:
    upstream = Upstream(url="http://10.0.0.1:8080")
    properties, upstream.properties = upstream.properties, None
    fingerprint = Fingerprint(upstream, None, tiny)
    async with running(fingerprint):
        assert fingerprint() == {}  # it has not been asked yet
        upstream.properties = properties
        assert await until(fingerprint, "hash") == expected(tiny)
    assert names(tmp_path) == set()


async def test_nobody_waits_for_the_hash(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = threading.Event()
    real = module._hash_of

    def held(*arguments: Any) -> str | None:
        assert hold.wait(300)
        return real(*arguments)

    monkeypatch.setattr(module, "_hash_of", held)
    fingerprint = Fingerprint(Upstream(str(tiny)), tmp_path)
    async with running(fingerprint):
        found = await until(fingerprint, "size")
        whole = expected(tiny)
        assert found == {key: whole[key] for key in whole if key != "hash"}
        hold.set()
        assert await until(fingerprint, "hash") == whole


async def test_a_hash_under_way_does_not_hold_up_the_end(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()

    class File:
        """One that never ends."""

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def readinto(self, buffer: memoryview) -> int:
            began.set()
            return len(buffer)

    real = module._computed

    def computed(facts: Any) -> str:
        monkeypatch.setattr(Path, "open", lambda *_, **__: File())
        return real(facts)

    monkeypatch.setattr(module, "_computed", computed)
    fingerprint = Fingerprint(Upstream(str(tiny)), tmp_path)
    async with running(fingerprint):
        await trio.to_thread.run_sync(began.wait)
    assert "hash" not in fingerprint()


async def test_a_hash_is_computed_once_for_each_state_of_a_file(
    tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(tiny, model)
    for _ in range(2):  # another server's turn
        fingerprint = Fingerprint(Upstream(str(model)), tmp_path)
        async with running(fingerprint):
            first = await until(fingerprint, "hash")
    assert len(hashed) == 1
    with model.open("ab") as file:
        file.write(b"more")
    fingerprint = Fingerprint(Upstream(str(model)), tmp_path)
    async with running(fingerprint):
        second = await until(fingerprint, "hash")
    assert (len(hashed), second) == (2, expected(model))
    assert second["hash"] != first["hash"]
    assert names(tmp_path) == {CACHE, "model.gguf"}
    # What is remembered may be damaged.
    for damage in (b"", b"[]", b'{"a":1}', (tmp_path / CACHE).read_bytes().replace(b":", b":1")):
        (tmp_path / CACHE).write_bytes(damage)
        fingerprint = Fingerprint(Upstream(str(model)), tmp_path)
        async with running(fingerprint):
            assert (await until(fingerprint, "hash")) == second
    assert len(hashed) == 6


async def test_an_upstream_that_was_gone_may_come_back_with_another_model(
    tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(tiny, model)
    upstream = Upstream(str(model))
    fingerprint = Fingerprint(upstream, None)
    async with running(fingerprint):
        assert await until(fingerprint, "hash") == expected(model)
        properties = upstream.properties
        assert properties is not None
        upstream.properties = None
        assert fingerprint() == expected(model)  # nothing else is known
        with model.open("ab") as file:
            file.write(b"more")
        upstream.properties = replace(properties, context=64)
        assert fingerprint() == {**PLAIN, "context": 64}
        assert await until(fingerprint, "hash") == {**expected(model), "context": 64}
        upstream.properties = replace(properties)  # the same file: known at once
        assert await until(fingerprint, "hash") == expected(model)
    assert len(hashed) == 2


async def test_a_file_that_changes_while_it_is_read_has_no_hash(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(tiny, model)
    done = threading.Event()
    real = module._hash_of

    def meanwhile(facts: Any, folder: Any) -> str | None:
        with model.open("ab") as file:
            file.write(b"more")
        found = real(facts, folder)
        done.set()
        return found

    monkeypatch.setattr(module, "_hash_of", meanwhile)
    fingerprint = Fingerprint(Upstream(str(model)), tmp_path)
    async with running(fingerprint):
        await trio.to_thread.run_sync(done.wait)
        with trio.fail_after(PATIENCE):
            while fingerprint() != PLAIN:  # noqa: ASYNC110 - it calls nobody back
                await trio.sleep(0.01)
    assert not (tmp_path / CACHE).exists()


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Q8_0", "Q8_0"),
        ("Q4_K - Medium", "Q4_K_M"),
        ("(guessed) Q3_K - Small", "Q3_K_S"),
        ("all F32", "F32"),
    ],
)
def test_a_quantisation_that_is_told_has_the_usual_name(told: str, name: str) -> None:
    properties = Properties("m", 4, 512, True, "b1", quantisation=told)
    assert plain_fingerprint(properties)["quantisation"] == name
    assert plain_fingerprint(None) == {}


def test_models_are_the_same_by_hash_or_else_by_all_that_both_have() -> None:
    whole = {**PLAIN, "hash": "a", "size": 5, "quantisation": "F16"}
    rest = {key: value for key, value in whole.items() if key != "hash"}
    assert same_model(whole, {**whole, "name": "renamed", "build": "b2", "context": 64})
    assert not same_model(whole, {**whole, "hash": "b"})
    assert same_model(whole, rest)
    assert same_model(PLAIN, whole)
    for other in ({"name": "other"}, {"size": 6}, {"quantisation": "F32"}):
        assert not same_model(whole, {**rest, **other})
    assert not same_model({}, {})
    assert not same_model(PLAIN, {})
