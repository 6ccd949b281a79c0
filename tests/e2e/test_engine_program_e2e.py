"""A real llcuda-server that runs a `llama-server`: the stand-in, and a real one if there is one."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from llcuda_protocol import Done, Error, ErrorCode, Report, Splice, Status, Tokens
from tests.support.llama_server.engines import engines_of
from tests.support.llama_server.stand_in import stand_in
from tests.support.processes import PATIENCE, RunningServer, run, running_server, wait_until
from tests.support.raw_client import RawClient, ask, connected
from tests.support.upstream.chat_model import CALL_AT_ONCE, tool, write_chat_model

#: Asked for what it was trained on, the built-in model is sure of each token.
QUESTION = "What is a token?"
KNOWN = f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n"
MESSAGES = [{"role": "user", "content": QUESTION}]
STORY = "<|user|>\nTell me a story<|end|>\n<|assistant|>\n"
TOKENS = 1500


@dataclass(frozen=True)
class Served:
    """A server, and the llama-server that it runs."""

    server: RunningServer
    binary: Path

    def engine(self) -> int:
        """The process id of the llama-server."""
        (engine,) = engines_of(self.server.process.pid, self.binary)
        return engine

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"http://{self.server.address}{path}", json=body, timeout=PATIENCE)


@contextmanager
def serving(binary: Path, *arguments: str) -> Iterator[Served]:
    with running_server("--engine", str(binary), *arguments) as server:
        yield Served(server, binary)


@pytest.fixture(scope="module")
def served(llama_server_binary: Path) -> Iterator[Served]:
    """One for the tests that leave it as it was."""
    with serving(llama_server_binary) as found:
        yield found


def test_the_same_answer_over_each_way(served: Served) -> None:
    """Whole, as a stream of OpenAI's API, over our protocol, and by the command."""
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 40}
    whole = served.post("/v1/chat/completions", body).json()
    text = whole["choices"][0]["message"]["content"]
    assert len(text) > 40
    url = f"http://{served.server.address}/v1/chat/completions"
    with httpx.stream("POST", url, json={**body, "stream": True}, timeout=PATIENCE) as answer:
        data = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    choices = [choice for one in data for choice in json.loads(one)["choices"]]
    assert "".join(one["delta"].get("content") or "" for one in choices) == text
    assert len([one for one in choices if one["delta"].get("content")]) > 10
    with connected(served.server.port) as client:
        client.send(ask(KNOWN, n_predict=40))
        pieces, done = client.until(Done)
        assert "".join(pieces) == text
        assert done.usage["completion_tokens"] == whole["usage"]["completion_tokens"]
    said = run(
        *("client", "--server", served.server.address, "--temperature", "0"),
        *("--max-tokens", "40", QUESTION),
    )
    assert (said.returncode, said.stdout.strip()) == (0, text.strip())


def test_embeddings(served: Served) -> None:
    found = served.post("/v1/embeddings", {"input": ["one", "another"]}).json()["data"]
    vectors = [one["embedding"] for one in found]
    assert [len(one) for one in vectors] == [192, 192]
    assert vectors[0] != vectors[1]


def test_a_tool_is_called(llama_server_binary: Path, tmp_path: Path) -> None:
    model = write_chat_model(tmp_path / "chat.gguf")
    options = ("--model", str(model), "--ctx", "512", "--slots", "1")
    with serving(llama_server_binary, *options) as served:
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": "Hello"}],
            "tools": [tool("weather", city=["Rome"], days=[1, 2])],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "reasoning_effort": "none",
            "max_tokens": 200,
            "seed": 1,
            "logit_bias": CALL_AT_ONCE,
        }
        answer = served.post("/v1/chat/completions", body)
        assert answer.status_code == 200, answer.text
        (call, *_) = answer.json()["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"])["city"] == "Rome"


def _read(client: RawClient) -> tuple[list[str], list[int], Done]:
    """The pieces of an answer, after how many of them each splice came, and its end."""
    pieces: list[str] = []
    splices: list[int] = []
    while not isinstance(event := client.next(), Done):
        assert not isinstance(event, Error), event
        if isinstance(event, Splice):
            splices.append(len(pieces))
        if isinstance(event, Tokens):
            pieces += event.pieces
    return pieces, splices, event


def test_an_answer_goes_on_when_its_engine_is_killed(served: Served) -> None:
    with connected(served.server.port) as client:
        client.send(ask(STORY, 1, n_predict=TOKENS, ignore_eos=True))
        undisturbed, _, _ = _read(client)
        # The engine cannot be held: where it was done before it was killed, that is tried again.
        for attempt in itertools.count(2):
            request = ask(STORY, attempt, n_predict=TOKENS, ignore_eos=True)
            client.send(replace(request, splices=True))
            before, _ = client.until(Tokens)
            engine = served.engine()
            os.kill(engine, signal.SIGKILL)
            pieces, splices, done = _read(client)
            pieces = before + pieces
            assert (done.reason, done.usage["completion_tokens"]) == ("length", TOKENS)
            if splices:
                break
            assert attempt < 20
        # Where two tokens are as likely, an engine that computes all so far at once may then
        # choose the other; up to there it is the answer that nobody disturbed.
        text, expected = "".join(pieces), "".join(undisturbed)
        at = len("".join(pieces[: len(before) + splices[0]]))
        assert text[:at] == expected[:at]
        assert text[at:]
        wait_until(lambda: bool(engines_of(served.server.process.pid, served.binary)), "the next")
        assert served.engine() != engine
        client.send(Status(attempt + 1))
        _, report = client.until(Report)
        assert report.report["upstreams"][0]["restarts"] >= 1


def test_what_the_model_is_sure_of_is_the_same_token_for_token(served: Served) -> None:
    """Every candidate is asked for, which makes each token slow enough for a kill in between."""
    with connected(served.server.port) as client:
        client.send(ask(KNOWN, 1, n_predict=60))
        undisturbed, _, _ = _read(client)
        for attempt in itertools.count(2):
            request = ask(KNOWN, attempt, n_predict=60, n_probs=1000)
            client.send(replace(request, splices=True))
            before, _ = client.until(Tokens)
            os.kill(served.engine(), signal.SIGKILL)
            pieces, splices, _ = _read(client)
            assert [one for one in before + pieces if one] == [one for one in undisturbed if one]
            if splices:
                break
            assert attempt < 20
            wait_until(
                lambda: bool(engines_of(served.server.process.pid, served.binary)), "the next"
            )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_engine_outlives_its_server(llama_server_binary: Path, number: signal.Signals) -> None:
    with serving(llama_server_binary) as served:
        engine = served.engine()
        served.server.stop(number)
        wait_until(lambda: not _alive(engine), "the engine has gone")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_options_behind_two_dashes_reach_it(llama_server_binary: Path) -> None:
    options = ("--", "--cache-type-k", "q8_0", "--flash-attn", "on", "--no-warmup")
    with serving(llama_server_binary, *options) as served:
        line = Path(f"/proc/{served.engine()}/cmdline").read_bytes().split(b"\0")
        assert line[-6:-1] == [one.encode() for one in options[1:]]
        body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 3}
        assert served.post("/v1/chat/completions", body).status_code == 200


def _refused(*arguments: str) -> str:
    """What a server says that does not start; it is one line."""
    ended = run("server", "--port", "0", *arguments)
    assert ended.returncode not in (0, None)
    assert ended.stdout == ""
    (line,) = [one for one in ended.stderr.splitlines() if not one.startswith("{")]
    return line


def test_wrong_options_are_one_line(llama_server_binary: Path, tmp_path: Path) -> None:
    engine = ("--engine", str(llama_server_binary))
    assert "--nope" in _refused(*engine, "--", "--nope")
    assert "q9" in _refused(*engine, "--", "--cache-type-k", "q9")
    assert "no-such-server" in _refused("--engine", str(tmp_path / "no-such-server"))
    (tmp_path / "m.gguf").write_bytes(b"GGUX" + bytes(100))
    assert "m.gguf" in _refused(*engine, "--model", str(tmp_path / "m.gguf"))
    assert "GPU" in _refused(*engine, "--gpu-layers", "99")


def test_one_that_crashes_again_and_again(tmp_path: Path) -> None:
    crashes = stand_in(tmp_path)
    options = ("--engine", str(crashes.path), "--failover-seconds", "3")
    with running_server(*options) as server:
        crashes.tell(crash="load")
        os.kill(Served(server, crashes.path).engine(), signal.SIGKILL)
        with connected(server.port) as client:
            client.send(ask(KNOWN, 1, n_predict=3))
            _, error = client.until(Error)
            assert error.code == ErrorCode.UPSTREAM_UNAVAILABLE
            assert "engine is starting again" in error.message
        wait_until(lambda: server.log().count("engine_died") > 1, "it has crashed, too")
        died = [json.loads(one) for one in server.log().splitlines() if "engine_died" in one]
        assert died[0]["why"].startswith("the engine was ended by SIGKILL")
        assert died[1]["why"] == "the engine was ended by SIGSEGV"
        assert "load_model: loading model" in died[1]["last_lines"][-1]
        # It is mended, and the server finds that out by itself.
        crashes.tell()
        wait_until(lambda: server.log().count('"engine_started"') > 1, "it runs again")

        def answers() -> bool:
            with connected(server.port) as client:
                client.send(ask(KNOWN, 1, n_predict=3))
                return isinstance(client.until(Done | Error)[1], Done)

        wait_until(answers, "it answers again")
