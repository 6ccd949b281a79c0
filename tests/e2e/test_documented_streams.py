"""The streams that README.md and the docs show: one, and those that outlive their server."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.processes import PATIENCE, RunningServer, environment, running_server
from tests.support.steady import held_upstream, release
from tools.synthetic.pages import apply_template
from tools.synthetic.tokens import generation

ROOT = Path(__file__).parents[2]
TOKENS = 60


def block(language: str, words: str, page: str = "docs/http-api.md") -> str:
    """The block of code with these words."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (one,) = (code for code in found if words in code)
    return str(one)


def test_of_the_readme(demo_server: RunningServer) -> None:
    code = block("python", "import OpenAI", "README.md")
    assert len([line for line in code.splitlines() if line]) == 5
    code = code.replace("127.0.0.1:9000", demo_server.address)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.startswith("A slot is one parallel sequence")


def test_with_curl(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = block("sh", "Last-Event-ID").replace("9000", str(port))
    server = f"{sys.executable} -m llcuda_net.cli.server --port {port} --log-level error"
    done = subprocess.run(
        ["bash", "-c", f"llcuda-server() {{ exec {server} > log; }}\n{code}\nwait"],
        env=environment(LLCUDA_DATA_DIR=str(tmp_path / "data"), LLCUDA_STORE="sqlite"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    names = re.findall(r"^id: (.*)$", done.stdout, re.MULTILINE)
    assert names, done.stderr
    numbers = [int(name.split(":")[1]) for name in names]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len({name.split(":")[0] for name in names}) == 1
    events = re.findall(r"^data: (\{.*)$", done.stdout, re.MULTILINE)
    assert len(events) == len(numbers)
    text = "".join(json.loads(one)["choices"][0]["delta"].get("content", "") for one in events)
    assert text.startswith("llcuda is a server")
    assert done.stdout.rstrip().endswith("data: [DONE]"), done.stderr


@pytest.mark.parametrize("read", [12, 25])
def test_with_the_sdk(tmp_path: Path, read: int) -> None:
    names: dict[str, Any] = {"openai": openai, "httpx": httpx, "time": time}
    exec(block("python", "def chunks("), names)
    chunks: Callable[..., Iterator[Any]] = names["chunks"]
    messages = [{"role": "user", "content": "tell me a story"}]
    with held_upstream(30) as url, ExitStack() as stack:
        arguments = ["--data-dir", str(tmp_path), "--upstream", url]
        server = stack.enter_context(running_server(*arguments))
        base = f"http://{server.address}/v1"
        client = stack.enter_context(openai.OpenAI(base_url=base, api_key="any", max_retries=0))
        request = {"model": "any", "messages": messages, "max_tokens": TOKENS, "temperature": 0}
        found = []
        for chunk in chunks(client, "a story", **request):
            found.append(chunk.choices[0].delta.content or "")
            if len(found) == read:
                server.stop(signal.SIGKILL)
                port = str(server.port)
                server = stack.enter_context(running_server(*arguments, "--port", port))
                release(url)
        assert "".join(found) == generation(apply_template(messages), TOKENS)


@pytest.mark.parametrize("read", [2, 12, 25])
def test_of_a_response(tmp_path: Path, read: int) -> None:
    names: dict[str, Any] = {"openai": openai, "httpx": httpx, "time": time}
    exec(block("python", "def events(", "docs/api-responses.md"), names)
    events: Callable[..., Iterator[Any]] = names["events"]
    with held_upstream(30) as url, ExitStack() as stack:
        arguments = ["--data-dir", str(tmp_path), "--upstream", url]
        server = stack.enter_context(running_server(*arguments))
        base = f"http://{server.address}/v1"
        client = stack.enter_context(openai.OpenAI(base_url=base, api_key="any", max_retries=0))
        request = {"model": "any", "input": "tell me a story", "temperature": 0}
        found = []
        for event in events(client, **request, max_output_tokens=TOKENS):
            found.append(event)
            if len(found) == read:
                server.stop(signal.SIGKILL)
                port = str(server.port)
                server = stack.enter_context(running_server(*arguments, "--port", port))
                release(url)
        numbers = [event.sequence_number for event in found]
        assert numbers[:read] == list(range(read))
        assert numbers == sorted(set(numbers))  # the next run's begin far above
        text = "".join(one.delta for one in found if one.type == "response.output_text.delta")
        messages = [{"role": "user", "content": "tell me a story"}]
        assert text == generation(apply_template(messages), TOKENS)
        assert found[-1].response.output_text == text
