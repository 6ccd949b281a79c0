"""A real llama-server in router mode behind a real server: loaded on demand, swapped, killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.llama_server.binary import VARIABLE, real_llama_server
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until

PROGRAM = real_llama_server()
pytestmark = [
    pytest.mark.llama_server,
    pytest.mark.skipif(
        PROGRAM is None,
        reason=f"no llama-server: set {VARIABLE} to one, or have it on PATH; the scripted router "
        "of tests/llcuda_net/upstream/router stands in for it",
    ),
]
DEMO = Path(__file__).parents[2] / "llcuda_net/data/demo.gguf"
#: Tokens of a long answer, all of which the context holds.
LONG = 600


class Router:
    """A router process on a port of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [
                    str(PROGRAM),
                    *("--models-dir", str(self.folder / "models"), "--port", str(self.port)),
                    *("--models-max", "1", "--ctx-size", "2048", "-np", "2", "-t", "1"),
                    *self.options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("LLAMA_")},
            )
        wait_until(self._answers, "the router answers")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.url}/health", timeout=10).close()
            return True
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(PATIENCE)

    def states(self) -> dict[str, str]:
        with urllib.request.urlopen(f"{self.url}/models", timeout=PATIENCE) as answer:
            return {one["id"]: one["status"]["value"] for one in json.load(answer)["data"]}

    def child(self, model: str) -> int:
        """The process of a model."""
        assert self.process is not None
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        for number in [one for path in threads for one in path.read_text().split()]:
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            if words[words.index(b"--alias") + 1] == model.encode():
                return int(number)
        raise AssertionError(f"{model} has no process")


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("demo", "twin"):
        (folder / f"{name}.gguf").symlink_to(DEMO)
    found = Router(tmp_path)
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


@pytest.fixture
def server(router: Router) -> Iterator[RunningServer]:
    with running_server("--upstream", router.url) as found:
        yield found


def answer(
    server: RunningServer, model: str, tokens: int = 8, **more: Any
) -> tuple[int, dict[str, Any]]:
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": tokens, **more}
    request = urllib.request.Request(
        f"http://{server.address}/v1/completions",
        json.dumps({**body, "temperature": 0, "ignore_eos": True}).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def text(server: RunningServer, model: str, tokens: int = 8) -> str:
    status, found = answer(server, model, tokens)
    assert status == 200, found
    assert found["usage"]["completion_tokens"] == tokens
    return str(found["choices"][0]["text"])


def models(server: RunningServer) -> set[str]:
    with urllib.request.urlopen(f"http://{server.address}/v1/models", timeout=PATIENCE) as found:
        return {one["id"] for one in json.load(found)["data"]}


def test_models_are_loaded_for_requests_and_nothing_else(
    router: Router, server: RunningServer
) -> None:
    assert models(server) == {"demo", "twin"}
    assert router.states() == {"demo": "unloaded", "twin": "unloaded"}
    first = text(server, "twin")
    assert router.states() == {"demo": "unloaded", "twin": "loaded"}
    assert text(server, "demo") == first  # the same weights
    assert router.states() == {"demo": "loaded", "twin": "unloaded"}
    status, found = answer(server, "other")
    assert (status, found["error"]["code"]) == (404, "model_not_found")


def test_two_users_of_two_models_lose_nothing_where_there_is_room_for_one(
    router: Router, server: RunningServer
) -> None:
    expected = text(server, "demo", LONG)
    found: dict[str, list[str]] = {"demo": [], "twin": []}

    def user(model: str) -> None:
        for _ in range(3):
            found[model].append(text(server, model, LONG))

    threads = [threading.Thread(target=user, args=(model,)) for model in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"demo": [expected] * 3, "twin": [expected] * 3}
    assert "generation_moves" not in server.log()  # no answer was cut off


def test_an_answer_whose_process_is_killed_goes_on_in_the_next_one(
    router: Router, server: RunningServer
) -> None:
    expected = text(server, "demo", LONG)
    request = urllib.request.Request(
        f"http://{server.address}/v1/completions",
        json.dumps(
            {
                "model": "demo",
                "prompt": "Once upon a time",
                "max_tokens": LONG,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode(),
        {"content-type": "application/json"},
    )
    pieces: list[str] = []
    before, usage = "", None
    with urllib.request.urlopen(request, timeout=PATIENCE) as found:
        for line in found:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            if not pieces:
                os.kill(router.child("demo"), signal.SIGKILL)
            pieces += [one["text"] for one in event["choices"]]
            usage = event.get("usage") or usage
            if "generation_moves" not in server.log():
                before = "".join(pieces)
    # Behind the place where it was continued, a near-tie may go the other way.
    assert expected.startswith(before)
    assert usage is not None
    assert usage["completion_tokens"] == LONG


def test_a_model_that_does_not_load_is_an_error_of_its_requests_alone(
    router: Router, server: RunningServer
) -> None:
    (router.folder / "models/broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with urllib.request.urlopen(f"{router.url}/models?reload=1", timeout=PATIENCE):
        pass
    wait_until(lambda: "broken" in models(server), "the new model is listed")
    status, found = answer(server, "broken")
    assert status >= 500
    assert found["error"]["message"].startswith(
        f"model broken cannot be loaded by {router.url}: its process ended with code"
    )
    assert "\n" not in found["error"]["message"]
    text(server, "demo")


def test_a_router_that_starts_again_with_other_models_is_followed(
    router: Router, server: RunningServer
) -> None:
    text(server, "demo")
    router.stop(signal.SIGKILL)
    (router.folder / "models/twin.gguf").rename(router.folder / "models/other.gguf")
    router.start()
    wait_until(lambda: models(server) == {"demo", "other"}, "the models are those of now")
    assert text(server, "other") == text(server, "demo")


def test_a_router_that_comes_late_is_found(router: Router) -> None:
    router.stop()
    with running_server("--upstream", router.url) as server:
        assert models(server) == set()
        router.start()
        wait_until(lambda: models(server) == {"demo", "twin"}, "the router is found")
        text(server, "demo")
