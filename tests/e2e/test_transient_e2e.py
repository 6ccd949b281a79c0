"""What is not to be stored is in no file of the data directory when its time is over.

Real processes, killed with kill -9. Servers with a long time keep it for as long as a test needs,
and one with a short time erases it: so no test depends on how fast it runs.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import PATIENCE, RunningServer, running_server
from tests.support.steady import held_upstream, release
from tests.support.storage.holders import holders

SECRET, KEY = "rosebud-5f1d", "citizen-77aa"
_LONG, _SHORT = ("--transient-seconds", "3600"), ("--transient-seconds", "1")


def _body(text: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {"model": "any", "messages": [message], "max_tokens": 60, "seed": 0, **fields}


#: Paths, and how each says that a text is not to be stored.
_APIS: dict[str, Callable[[str], dict[str, Any]]] = {
    "chat/completions": _body,
    "completions": lambda text: {"model": "any", "prompt": text, "max_tokens": 20},
    "messages": _body,
    "responses": lambda text: {"model": "any", "input": text, "store": False},
}


def _ask(server: RunningServer, text: str, *, store: bool, api: str = "chat/completions") -> str:
    """The id of a generation that is over."""
    body = _APIS[api](text)
    by_header = {"x-llcuda-store": "true" if store else "false"}
    answer = httpx.post(
        f"http://{server.address}/v1/{api}",
        headers={} if "store" in body else by_header,
        json=body,
        timeout=PATIENCE,
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-llcuda-generation"]


def _read_some(server: RunningServer, events: int) -> str:
    """Begin a stream, and go away after so many events: its generation's id."""
    with httpx.stream(
        "POST",
        f"http://{server.address}/v1/chat/completions",
        headers={"x-llcuda-store": "false", "Idempotency-Key": KEY},
        json=_body(SECRET, stream=True),
        timeout=PATIENCE,
    ) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            events -= line.startswith("data: ")
            if not events:
                break
        return answer.headers["x-llcuda-generation"]


def _read_all(server: RunningServer, id_: str) -> tuple[str, bool]:
    """The text of a generation from its first event on, and whether it came to its end."""
    url, text = f"http://{server.address}/v1/generations/{id_}/events", ""
    with httpx.stream("GET", url, timeout=PATIENCE) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "data" and value == "[DONE]":
                return text, True
            if name == "data":
                for choice in json.loads(value)["choices"]:
                    text += choice["delta"].get("content") or ""
    return text, False


def _shown(server: RunningServer, id_: str) -> httpx.Response:
    return httpx.get(f"http://{server.address}/v1/generations/{id_}", timeout=PATIENCE)


def _until(condition: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.05)


def _is_anywhere(folder: Path, id_: str) -> bool:
    """Whether anything of it is in any file, or in the name of one."""
    names = [path.name for path in folder.rglob("*") if id_ in path.name]
    return bool(names or any(holders(folder, text) for text in (SECRET, KEY, id_)))


def test_one_that_was_killed_midway_is_continued_read_and_erased(tmp_path: Path) -> None:
    with held_upstream(20) as url, ExitStack() as stack:
        arguments = ["--data-dir", str(tmp_path), "--upstream", url]
        server = stack.enter_context(running_server(*arguments, *_LONG))
        id_ = _read_some(server, 10)
        server.stop(signal.SIGKILL)
        for text in (SECRET, KEY, id_):
            assert holders(tmp_path / "journal", text) != []
        release(url)
        server = stack.enter_context(running_server(*arguments, *_LONG))
        text, done = _read_all(server, id_)
        assert done
        assert text == _shown(server, id_).json()["text"]
        server.stop(signal.SIGKILL)
        assert len(list((tmp_path / "transient").iterdir())) == 1
        assert _is_anywhere(tmp_path, id_)
        # Two more restarts, each after a kill, change nothing.
        server = stack.enter_context(running_server(*arguments, *_LONG))
        assert _read_all(server, id_) == (text, True)
        other = _ask(server, "to be kept", store=True)
        server.stop(signal.SIGKILL)
        assert _is_anywhere(tmp_path, id_)
        server = stack.enter_context(running_server(*arguments, *_SHORT))
        _until(lambda: _shown(server, id_).status_code == 404)
        _until(lambda: not _is_anywhere(tmp_path, id_))
        assert _shown(server, other).json()["state"] == "done"
        server.stop(signal.SIGKILL)
        assert not _is_anywhere(tmp_path, id_)
        server = stack.enter_context(running_server(*arguments, *_LONG))
        assert _shown(server, id_).status_code == 404
        assert _shown(server, other).json()["state"] == "done"
        assert holders(tmp_path, "to be kept") != []


@pytest.mark.parametrize("api", _APIS)
def test_a_server_that_runs_on_erases_each_at_its_time(tmp_path: Path, api: str) -> None:
    """With an ordinary one among them, which stays."""
    with running_server("--data-dir", str(tmp_path), *_SHORT) as server:
        kept = _ask(server, "to be kept", store=True)
        ids = [_ask(server, SECRET, store=False, api=api) for _ in range(3)]
        for id_ in ids:
            _until(lambda id_=id_: not _is_anywhere(tmp_path, id_))  # type: ignore[misc]
            assert _shown(server, id_).status_code == 404
        assert _shown(server, kept).json()["state"] == "done"
    assert list((tmp_path / "transient").iterdir()) == []
    assert not _is_anywhere(tmp_path, ids[0])
    assert holders(tmp_path, "to be kept") != []


@pytest.mark.parametrize("api", _APIS)
def test_each_is_there_before(tmp_path: Path, api: str) -> None:
    """The control: that nothing is found afterwards says something."""
    with running_server("--data-dir", str(tmp_path), *_LONG) as server:
        id_ = _ask(server, SECRET, store=False, api=api)
        assert len(list((tmp_path / "transient").iterdir())) == 1
        assert holders(tmp_path / "journal", SECRET) != []
        assert holders(tmp_path, id_) != []
        assert [path for path in holders(tmp_path, SECRET) if ".db" in path] == []
