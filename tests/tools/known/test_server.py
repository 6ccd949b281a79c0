"""The known servers as processes: their routes, and that no token comes before it is due."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest

from tests.tools.test_synthetic_upstream import ASK, END, TIMEOUT, ask, events, exchange, upstream
from tools import synthetic_upstream
from tools.synthetic.known.service import Service

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


def served(address: tuple[str, int]) -> list[dict[str, Any]]:
    rows = ask(address, "/truth/requests")[1]["requests"]
    assert isinstance(rows, list)
    return rows


def lines(address: tuple[str, int], path: str, body: Any) -> list[str]:
    """The data of a streamed reply's events."""
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request("POST", path, json.dumps(body))
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return [part.removeprefix("data: ") for part in text.split("\n\n") if part]


def test_no_token_comes_before_it_is_due() -> None:
    service, rng = Service.parse("exponential:0.02"), random.Random("service times 5")
    with upstream("--service", "exponential:0.02", "--seed", "5", "--slots", "1") as address:
        for _ in range(3):
            assert len(events(exchange(address, ASK, END))) == 5
        rows = served(address)
    assert len(rows) == 3
    for row in rows:
        offsets = service.draw(rng, 4)
        assert row["work"] == pytest.approx(offsets[-1])
        assert row["began"] == row["arrived"]
        assert row["first_due"] == pytest.approx(row["began"] + offsets[0])
        assert row["first"] >= row["first_due"] - 1e-6
        assert row["due"] == pytest.approx(row["began"] + offsets[-1])
        assert row["ended"] >= row["due"] - 1e-6
        assert row["tokens"] == 4


def test_who_waits_begins_when_the_one_before_was_due_to_end() -> None:
    with upstream("--service", "fixed:0.1", "--slots", "1") as address:
        connections = [http.client.HTTPConnection(*address, timeout=TIMEOUT) for _ in range(4)]
        for connection in connections:
            connection.request("POST", "/completion", json.dumps(ASK))
        for connection in connections:
            assert connection.getresponse().read()
            connection.close()
        rows = served(address)
    for before, row in pairwise(rows):
        due = before["began"] + 0.1
        assert row["began"] == pytest.approx(max(row["arrived"], due), abs=1e-6)


def test_a_client_that_goes_frees_its_slot() -> None:
    with upstream("--service", "fixed:1000", "--slots", "1") as address:
        gone = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        gone.request("POST", "/completion", json.dumps(ASK))
        waits = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        while ask(address, "/synthetic")[1]["active"] != 1:
            pass
        waits.request("POST", "/completion", json.dumps(ASK))
        while ask(address, "/synthetic")[1]["waiting"] != 1:
            pass
        assert served(address)[1]["began"] is None
        gone.close()
        while ask(address, "/synthetic")[1]["waiting"]:
            pass
        first, second = served(address)
        waits.close()
    assert first["ended"] is None
    assert second["began"] > second["arrived"]


def test_the_truth_is_told() -> None:
    with upstream("--service", "fixed:3", "--slots", "256") as address:
        status, told = ask(address, "/truth?rate=4&tokens=16")
        assert (status, told["response"]["p99"]) == (200, pytest.approx(3))
        assert ask(address, "/truth")[1]["response"] is None
        for wrong in ("?rate=x", "?rate=-1", "?tokens=0", "?other=1"):
            assert ask(address, "/truth" + wrong)[0] == 400
        for _ in range(2):  # a page leaves the server as it is
            assert ask(address, "/props")[1]["total_slots"] == 256
    with upstream() as address:
        assert ask(address, "/truth")[0] == 404


def test_the_truth_is_printed() -> None:
    command = [sys.executable, synthetic_upstream.__file__, "--print-truth", "8:16", "--slots", "1"]
    done = subprocess.run(
        [*command, "--service", "exponential:0.1"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["response"]["mean"] == pytest.approx(0.5)
    for wrong in ([], ["--service", "nonsense"], ["--service", "fixed:0"]):
        failed = subprocess.run([*command, *wrong], capture_output=True, text=True, check=False)
        assert failed.returncode == 2
        assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [("--service", "fixed:0.01"), ("--rate", "0")])
def test_chat_completions_are_openais(options: tuple[str, ...]) -> None:
    with upstream(*options) as address:
        body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        *found, end = lines(address, "/v1/chat/completions", body)
        whole = ask(address, "/v1/chat/completions", CHAT)[1]
        model = ask(address, "/v1/models")[1]["data"][0]["id"]
    assert end == "[DONE]"
    *chunks, last, usage = map(json.loads, found)
    assert len(chunks) == 4
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("role") for delta in deltas] == ["assistant", None, None, None]
    assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "length"}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    message = whole["choices"][0]["message"]
    assert message["content"] == "".join(delta["content"] for delta in deltas)
    same = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [whole["usage"][name] for name in same] == [usage["usage"][name] for name in same]
    assert whole["model"] == model == chunks[0]["model"]


def test_completions_are_openais() -> None:
    with upstream("--service", "fixed:0.01") as address:
        body = {"prompt": "hello", "max_tokens": 3, "stream": True}
        *found, end = lines(address, "/v1/completions", body)
        whole = ask(address, "/v1/completions", {"prompt": ["hello"], "max_tokens": 3})[1]
    chunks = [json.loads(line) for line in found]
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert end == "[DONE]"
    assert len(texts) == 4  # no usage: it was not asked for
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["text"] == "".join(texts)
    assert whole["usage"]["completion_tokens"] == 3


def test_a_server_of_openais_api_only() -> None:
    with upstream("--api", "openai", "--rate", "0") as address:
        assert ask(address, "/v1/chat/completions", CHAT)[0] == 200
        for path in ("/props", "/health", "/slots"):
            assert ask(address, path)[0] == 404
        assert ask(address, "/completion", {"prompt": "hello"})[0] == 404
        assert ask(address, "/v1/chat/completions", {"messages": []})[0] == 400
        assert ask(address, "/v1/chat/completions", {"messages": [3]})[0] == 400
        assert ask(address, "/v1/completions", {"prompt": 3})[0] == 400


def test_faults_strike_by_openais_api_too() -> None:
    with upstream(
        "--rate", "0", "--fault-on", "/v1/chat/completions", "--fault", "http:503*1"
    ) as a:
        assert [ask(a, "/v1/chat/completions", CHAT)[0] for _ in range(2)] == [503, 200]


def test_more_tokens_an_event() -> None:
    with upstream("--service", "fixed:0.05", "--tokens-per-event", "3") as address:
        assert len(events(exchange(address, ASK, END))) == 3
        row = served(address)[0]
    assert row["ended"] - row["began"] >= 0.05 - 1e-6
