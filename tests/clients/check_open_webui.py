"""Open WebUI: the whole of its server, asked over its API as its pages ask it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.clients.conftest import Served, frees_its_slot
from tests.support.processes import PATIENCE, running_server, wait_until
from tests.support.upstream.scripted_chat import ScriptedChat, arguments, call, text, thought
from tools import install_clients, synthetic_upstream
from tools.synthetic.pages import MODEL

MESSAGES = [{"role": "user", "content": "What is a slot?"}]


TOKEN = "of-open-webui"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a token file; Open WebUI's token may name users."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"{TOKEN} name=webui forwards=1\n", encoding="utf-8")
    with synthetic_upstream.running("--model", "guarded") as url:
        options = ("--upstream", url, "--auth-token-file", str(tokens))
        with running_server(*options) as server:
            yield Served(server)


@pytest.fixture(scope="module")
def pages(
    served: Served,
    _scripted: Served,
    held: Served,
    guarded: Served,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """A client of a running Open WebUI that has all four servers as its connections."""
    reason = install_clients.failure("open-webui")
    if reason is not None:
        pytest.fail(f"Open WebUI cannot be tried: {reason}", pytrace=False)
    folder = tmp_path_factory.mktemp("open-webui")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DATA_DIR": str(folder),
        "OPENAI_API_BASE_URLS": ";".join(one.url for one in (served, _scripted, held, guarded)),
        "OPENAI_API_KEYS": f"any;any;any;{TOKEN}",
        "ENABLE_FORWARD_USER_INFO_HEADERS": "True",
        "ENABLE_OLLAMA_API": "False",
        "WEBUI_AUTH": "False",
        "WEBUI_SECRET_KEY": "of tests",
        # As in its small image: no models of its own, no vector store, nothing fetched.
        "USE_SLIM_DOCKER": "true",
        "RAG_EMBEDDING_ENGINE": "openai",
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
    }
    program = install_clients.FOLDER / "open-webui" / "bin" / "open-webui"
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: running.poll() is not None or _answers(url), "it runs", 3 * PATIENCE)
        assert running.poll() is None, (folder / "log").read_text(encoding="utf-8")
        with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            nobody = {"email": "", "password": ""}
            token = client.post("/api/v1/auths/signin", json=nobody).json()["token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=10).close()
    except OSError:
        return False
    return True


def chunks(client: httpx.Client, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks that a page gets."""
    asked = {"stream": True, **body}
    with client.stream("POST", "/api/chat/completions", json=asked) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])


def test_with_the_built_in_model(pages: httpx.Client) -> None:
    names = {one["id"] for one in pages.get("/api/models").json()["data"]}
    assert names == {"demo", "scripted", "guarded", MODEL}
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    answer = pages.post("/api/chat/completions", json=body).json()
    whole = answer["choices"][0]["message"]["content"]
    assert whole.startswith("A slot is")
    deltas = [
        c["delta"].get("content") or "" for one in chunks(pages, body) for c in one["choices"]
    ]
    assert "".join(deltas) == whole
    refused = pages.post("/api/chat/completions", json={**body, "temprature": 1})
    assert refused.status_code == 400
    assert "temprature" in refused.text
    vectors = pages.post("/api/embeddings", json={"model": "demo", "input": ["a", "b"]}).json()
    assert len(vectors["data"]) == 2


def test_tools_and_reasoning(pages: httpx.Client, scripted: Served) -> None:
    script: ScriptedChat = scripted.script
    script.answers = [
        (
            [thought("Weather."), call(0, "get_weather", "c"), arguments(0, '{"city":"Oslo"}')],
            "tool_calls",
        )
    ]
    tool = {"type": "function", "function": {"name": "get_weather"}}
    body = {"model": "scripted", "messages": MESSAGES, "tools": [tool]}
    message = pages.post("/api/chat/completions", json=body).json()["choices"][0]["message"]
    assert message["reasoning_content"] == "Weather."
    assert message["tool_calls"][0]["function"]["arguments"] == '{"city":"Oslo"}'
    script.answers = [([text("It is sunny.")], "stop")]
    deltas = [
        c["delta"].get("content") or "" for one in chunks(pages, body) for c in one["choices"]
    ]
    assert "".join(deltas) == "It is sunny."


def test_its_users_are_users_of_ours(pages: httpx.Client, guarded: Served) -> None:
    user = pages.get("/api/v1/auths/").json()["id"]
    body = {"model": "guarded", "messages": MESSAGES, "max_tokens": 3}
    assert pages.post("/api/chat/completions", json=body).json()["choices"]
    of_user = {"Authorization": f"Bearer {TOKEN}", "X-OpenWebUI-User-Id": user}
    lists = [
        httpx.get(f"{guarded.url}/generations", headers=headers, timeout=PATIENCE).json()["data"]
        for headers in (of_user, {**of_user, "X-OpenWebUI-User-Id": "somebody"})
    ]
    assert [len(found) for found in lists] == [1, 0]


def test_leaving_frees_the_slot(pages: httpx.Client, held: Served) -> None:
    def leave() -> None:
        seen = 0
        stream = chunks(pages, {"model": MODEL, "messages": MESSAGES})
        for one in stream:
            seen += bool(one["choices"][0]["delta"].get("content"))
            if seen == 3:
                break
        stream.close()  # type: ignore[attr-defined]

    frees_its_slot(held, leave)
