"""A user's generations over HTTP, on a real server that was killed: listed, found, shown."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import RunningServer, running_server, wait_until


def _get(server: RunningServer, path: str, **query: Any) -> Any:
    url = f"http://127.0.0.1:{server.port}/v1/generations{path}"
    answer = httpx.get(url, params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _ask(server: RunningServer, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    answer = httpx.post(
        f"http://127.0.0.1:{server.port}/v1/chat/completions",
        json={"messages": messages, "max_tokens": 8, "temperature": 0},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-llcuda-generation"]


def test_found_again_after_a_kill(tmp_path: Path) -> None:
    data = {"LLCUDA_DATA_DIR": str(tmp_path)}
    with running_server("--slots", "1", **data) as server:
        first = _ask(server, "What is llcuda?")
        second = _ask(server, "*Which* zebra <b>crosses</b>?")
        server.stop(signal.SIGKILL)
    with running_server("--slots", "1", **data) as server:
        assert [one["id"] for one in _get(server, "")["data"]] == [second, first]
        assert [one["id"] for one in _get(server, "", order="asc")["data"]] == [first, second]
        assert [one["id"] for one in _get(server, "", before=first)["data"]] == [second]
        wait_until(lambda: not _get(server, "", q="zebra")["search"]["unindexed"], "all is indexed")
        (found,) = _get(server, "", q="zebra", since="1h", state="done")["data"]
        assert found["id"] == second
        match = found["matches"]["prompt"]
        assert [match["excerpt"][slice(*one)] for one in match["highlights"]] == ["zebra"]
        shown = _get(server, f"/{second}", render="html")
        assert shown["request"]["messages"][0]["content"] == "*Which* zebra <b>crosses</b>?"
        assert shown["html"]["text"].startswith("<")
        assert shown["timings"]["total"] > 0
        assert httpx.delete(
            f"http://127.0.0.1:{server.port}/v1/generations/{second}", timeout=60
        ).json()["deleted"]
        assert [one["id"] for one in _get(server, "")["data"]] == [first]
        assert not _get(server, "", q="zebra")["data"]
