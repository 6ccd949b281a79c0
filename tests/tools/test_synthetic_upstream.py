"""The synthetic upstream says what llama-server says, and goes wrong as told.

Each test has a process of its own, which ends with the test. Waits are for events; the timeouts
only end a test that has failed.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tools import synthetic_upstream
from tools.synthetic.faults import KINDS, Fault, Faults
from tools.synthetic.tokens import detokenise, generated, generation, tokenise

TIMEOUT = 300.0


@contextmanager
def upstream(*options: str) -> Iterator[tuple[str, int]]:
    with synthetic_upstream.running(*options) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def ask(address: tuple[str, int], path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data)
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


def exchange(address: tuple[str, int], body: Any, end: bytes | None = None) -> bytes:
    """The raw reply: up to `end`, or until the other side closes."""
    data = json.dumps(body).encode()
    head = b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data)
    with socket.create_connection(address, timeout=TIMEOUT) as sock:
        sock.sendall(head + data)
        got = b""
        while (end is None or end not in got) and (received := sock.recv(65_536)):
            got += received
        return got


def events(reply: bytes) -> list[Any]:
    """The events of a chunked body in which each chunk is one event."""
    body = reply.partition(b"\r\n\r\n")[2]
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length:
            assert rest.startswith(b"data: ")
            assert rest[length - 2 : length + 2] == b"\n\n\r\n"
            found.append(json.loads(rest[6:length]))
        body = rest[length + 2 :]
    return found


ASK = {"prompt": "hello", "n_predict": 4, "stream": True, "return_tokens": True}
END = b"\r\n0\r\n\r\n"  # the zero alone would also match "max=100" at the end of the head


def test_a_stream_is_llama_servers() -> None:
    with upstream("--rate", "0") as address:
        reply = exchange(address, ASK, END)
    head = reply.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head == [
        "HTTP/1.1 200 OK",
        "Server: llama.cpp",
        "Access-Control-Allow-Origin: ",
        "X-Accel-Buffering: no",
        "Content-Type: text/event-stream",
        "Transfer-Encoding: chunked",
        "Keep-Alive: timeout=5, max=100",
    ]
    *tokens, final = events(reply)
    assert [token["tokens_predicted"] for token in tokens] == [1, 2, 3, 4]
    assert detokenise([i for token in tokens for i in token["tokens"]]) == generation("hello", 4)
    assert "".join(token["content"] for token in tokens) == generation("hello", 4)
    assert all(
        list(token)[:5] == ["index", "content", "tokens", "stop", "id_slot"] for token in tokens
    )
    assert final["stop"] is True
    assert final["stop_type"] == "limit"
    assert final["tokens_predicted"] == 4
    assert final["tokens_evaluated"] == 5
    assert final["timings"]["predicted_n"] == 4


@pytest.mark.parametrize("options", [("--sync",), ("--spread",)])
def test_paced_streams_arrive_whole(options: tuple[str, ...]) -> None:
    with upstream("--rate", "200", *options) as address:
        reply = exchange(address, ASK, END)
    assert "".join(event["content"] for event in events(reply)) == generation("hello", 4)


def test_a_continuation_goes_on_where_it_stopped() -> None:
    whole = generation("once upon", 300)
    for cut in (0, 1, 255, 256, 299):
        part = whole[: 6 * cut]
        assert part + generation("once upon" + part, 300 - cut) == whole
    ids = tokenise("once upon" + whole)
    assert detokenise(ids) == "once upon" + whole
    assert len(ids) == len("once upon") + 300
    assert len(set(generated("once upon", 5000))) > 4900
    assert generated("once upon", 50, seed=1) != generated("once upon", 50)


def test_a_token_depends_on_all_before_it() -> None:
    whole = generation("once upon", 40)
    words = [whole[at : at + 6] for at in range(0, len(whole), 6)]
    for wrong in (words[:20] + words[21:], words[:20] + words[19:], ["x", *words[1:]]):
        assert generation("once upon" + "".join(wrong), 5) not in generation("once upon", 80)


def test_characters_of_several_tokens_come_whole() -> None:
    prompt = "hello [[split:3]]"
    ids, text = generated(prompt, 60), generation(prompt, 60)
    emojis = sum(i == 0xF0 for i in ids)
    assert emojis > 4
    with upstream("--rate", "0") as address:
        *tokens, final = events(exchange(address, {**ASK, "prompt": prompt, "n_predict": 60}, END))
        assert "".join(token["content"] for token in tokens) == text
        assert final["tokens_predicted"] == 60
        told = 0
        for token in tokens:
            count = token["tokens_predicted"] - told
            assert count == len(tokenise(token["content"]))
            assert token["tokens"] == [tokenise(token["content"])[-1]]
            told += count
        _, reply = ask(address, "/completion", {"prompt": prompt, "n_predict": 60})
        assert reply["content"] == text
        # From any token on, those within a character included.
        for cut in range(60):
            given = tokenise(prompt) + ids[:cut]
            _, rest = ask(
                address,
                "/completion",
                {"prompt": given, "n_predict": 60 - cut, "return_tokens": True},
            )
            assert ids[:cut] + rest["tokens"] == ids


def test_what_may_become_a_stop_string_is_held_back() -> None:
    whole = generation("hello", 4)
    ids = generated("hello", 4)
    held = whole[8:14]  # from within the second word into the third
    with upstream("--rate", "0") as address:
        *tokens, _ = events(exchange(address, {**ASK, "stop": [held + "?"]}, END))
        assert [token["content"] for token in tokens] == [
            whole[:6],
            "",
            whole[6:18],
            whole[18:],
        ]
        assert [token["tokens"] for token in tokens] == [[i] for i in ids]
        *tokens, final = events(exchange(address, {**ASK, "stop": [held]}, END))
        assert [token["content"] for token in tokens] == [whole[:6], "", whole[6:8]]
        assert (final["stop_type"], final["stopping_word"]) == ("word", held)


def test_the_prompt_may_be_ids_or_a_mixture() -> None:
    with upstream("--rate", "0") as address:
        for prompt in ("hello", list(b"hello"), ["he", 108, "lo"]):
            status, reply = ask(address, "/completion", {"prompt": prompt, "n_predict": 3})
            assert (status, reply["content"]) == (200, generation("hello", 3))


def test_stop_strings_and_the_context_end_it() -> None:
    third = generation("hello", 3)[-5:]
    with upstream("--rate", "0", "--ctx", "20") as address:
        _, reply = ask(address, "/completion", {**ASK, "stream": False, "stop": [third]})
        assert reply["content"] == generation("hello", 2) + " "
        assert (reply["stop_type"], reply["stopping_word"]) == ("word", third)
        streamed = events(exchange(address, {**ASK, "stop": [third]}, END))
        assert "".join(event["content"] for event in streamed) == reply["content"]
        assert streamed[-1]["stopping_word"] == third
        _, reply = ask(address, "/completion", {"prompt": "hello"})
        assert (reply["tokens_predicted"], reply["truncated"]) == (15, True)


def test_probabilities_and_groups() -> None:
    with upstream("--rate", "0", "--tokens-per-event", "3") as address:
        first, second, _ = events(exchange(address, {**ASK, "n_probs": 2}, END))
    assert first["content"] + second["content"] == generation("hello", 4)
    entries = first["completion_probabilities"]
    assert [entry["id"] for entry in entries] == first["tokens"]
    assert len(entries[0]["top_logprobs"]) == 2


def test_a_stamp_is_the_time_of_emission() -> None:
    with upstream("--rate", "0", "--stamp") as address:
        before = time.monotonic_ns()
        *tokens, _ = events(exchange(address, ASK, END))
        after = time.monotonic_ns()
    stamps = [int(token["content"].partition("@")[2]) for token in tokens]
    assert len(stamps) == 4
    assert before <= min(stamps)
    assert max(stamps) <= after
    assert {len(token["content"]) for token in tokens} == {25}


def test_the_other_endpoints() -> None:
    with upstream("--slots", "3", "--ctx", "512") as address:
        assert ask(address, "/health") == (200, {"status": "ok"})
        _, props = ask(address, "/props")
        assert props["total_slots"] == 3
        assert props["default_generation_settings"]["n_ctx"] == 512
        _, slots = ask(address, "/slots")
        assert [slot["is_processing"] for slot in slots] == [False] * 3
        messages = [{"role": "user", "content": "hi"}]
        template = ask(address, "/apply-template", {"messages": messages})
        assert template == (200, {"prompt": "<|user|>hi<|end|><|assistant|>"})
        assert ask(address, "/tokenize", {"content": "hi"}) == (200, {"tokens": [104, 105]})
        assert ask(address, "/detokenize", {"tokens": [104, 105]}) == (200, {"content": "hi"})
        _, vectors = ask(address, "/embedding", {"content": ["a", "b"]})
        assert [row["index"] for row in vectors] == [0, 1]
        assert sum(x * x for x in vectors[0]["embedding"][0]) == pytest.approx(1.0)
        assert ask(address, "/nothing")[0] == 404
        assert ask(address, "/tokenize", {})[0] == 400


def test_refusals_are_llama_servers() -> None:
    with upstream("--ctx", "512") as address:
        assert ask(address, "/completion", {"prompt": "x" * 3000}) == (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "request (3000 tokens) exceeds the available context size "
                    "(512 tokens), try increasing it",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 3000,
                    "n_ctx": 512,
                }
            },
        )
        status, reply = ask(address, "/completion", {"prompt": "a", "temperature": "x"})
        assert (status, reply["error"]["type"]) == (400, "invalid_request_error")


def test_keep_alive_and_pipelining() -> None:
    with upstream("--rate", "0") as address:
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        for _ in range(3):
            connection.request("POST", "/completion", json.dumps(ASK))
            assert connection.getresponse().read().endswith(b"\n\n")
        connection.close()
        with socket.create_connection(address, timeout=TIMEOUT) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            got = b""
            while got.count(b'{"status":"ok"}') < 2:
                got += sock.recv(4096)


def test_requests_wait_for_a_slot_and_a_dropped_one_frees_it() -> None:
    with upstream("--slots", "1", "--rate", "200", "--ctx", "1000000") as address:
        holder = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        holder.request("POST", "/completion", json.dumps({**ASK, "n_predict": -1}))
        response = holder.getresponse()
        assert response.fp.readline()
        waiter = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        waiter.request("POST", "/completion", json.dumps(ASK))
        while ask(address, "/synthetic")[1]["waiting"] != 1:
            pass
        response.close()
        holder.close()
        assert waiter.getresponse().read().count(b"data: ") == 5
        waiter.close()
        report = ask(address, "/synthetic")[1]
        assert (report["active"], report["waiting"], report["dropped"]) == (0, 0, 1)
        assert report["last_request"] == ASK


BROKEN = {
    "no-final": (2, True),
    "error-event": (2, True),
    "die": (2, False),
    "cut": (2, False),
    "bad-chunk": (2, False),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_faults_in_the_middle(kind: str) -> None:
    count, ended = BROKEN[kind]
    with upstream("--rate", "0") as address:
        reply = exchange(address, {**ASK, "fault": f"{kind}:2"}, END)
        whole = exchange(address, ASK, END)
    assert reply.count(b'"tokens_predicted":') == count
    assert reply.endswith(END) is ended
    assert b'"stop":true' not in reply
    assert b'"stop":true' in whole
    if kind == "cut":
        assert not reply.endswith(b"\n\n\r\n")
    if kind == "bad-chunk":
        assert b"\r\nzz\r\n" in reply


def test_faults_that_hold_reset_or_never_end() -> None:
    with upstream("--rate", "0") as address:
        with pytest.raises(ConnectionResetError):
            exchange(address, {**ASK, "fault": "reset"})
        assert exchange(address, {**ASK, "fault": "stall:3"}, b'"tokens_predicted":3')
        huge = exchange(address, {**ASK, "fault": "huge-line:1"}, b"x" * 65_536)
        assert huge.count(b"\n\n") == 1
        filler = exchange(address, {**ASK, "fault": "endless-headers"}, b"X-Filler: ")
        assert b"\r\n\r\n" not in filler
        wrong = events(exchange(address, {**ASK, "fault": "wrong-types:1"}, END))
        assert wrong[1]["content"] == 17


def test_faults_before_the_headers() -> None:
    with upstream("--rate", "0") as address:
        assert exchange(address, {**ASK, "fault": "close"}) == b""
        assert not exchange(address, {**ASK, "fault": "not-http"}).startswith(b"HTTP/")
        assert ask(address, "/completion", {**ASK, "fault": "http:503"})[0] == 503
        assert ask(address, "/completion", {**ASK, "fault": "http"})[0] == 500
        assert ask(address, "/completion", {**ASK, "fault": "nonsense"})[0] == 400


def test_one_byte_at_a_time_and_end_of_text() -> None:
    with upstream("--rate", "0") as address:
        slow = events(exchange(address, {**ASK, "fault": "dribble"}, END))
        assert "".join(event["content"] for event in slow) == generation("hello", 4)
        ended = events(exchange(address, {**ASK, "fault": "eos:1"}, END))
        assert [event.get("stop_type") for event in ended] == [None, "eos"]


def test_a_fault_in_the_prompt_hits_so_many_requests() -> None:
    with upstream("--rate", "0") as address:
        body = {**ASK, "prompt": "hello [[http:500*2]]"}
        statuses = [ask(address, "/completion", {**body, "stream": False})[0] for _ in range(3)]
    assert statuses == [500, 500, 200]


def test_a_fault_of_another_endpoint() -> None:
    with upstream("--fault", "not-json", "--fault-on", "/props") as address:
        with pytest.raises(ValueError):
            ask(address, "/props")
        assert ask(address, "/health")[0] == 200


def test_what_is_held_goes_on_when_it_is_released() -> None:
    data = json.dumps({**ASK, "prompt": "hello [[hold:3]]", "n_predict": 9}).encode()
    head = b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data)
    with upstream("--rate", "500") as address:
        with socket.create_connection(address, timeout=TIMEOUT) as sock:
            sock.sendall(head + data)
            got = b""
            while got.count(b"data: ") < 3:
                got += sock.recv(65_536)
            # Others are not held, and so many tokens later nothing more has come.
            assert exchange(address, {**ASK, "n_predict": 20}, END).endswith(END)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(65_536)
            sock.settimeout(TIMEOUT)
            assert ask(address, "/synthetic", {"release": True})[0] == 200
            while END not in got:
                got += sock.recv(65_536)
        text = "".join(event["content"] for event in events(got))
        assert text == generation("hello [[hold:3]]", 9)
        held = {**ASK, "n_predict": 9, "fault": "hold:3"}
        assert exchange(address, held, END).endswith(END)
        ask(address, "/synthetic", {"release": False})
        assert END not in exchange(address, held, b'"tokens_predicted":3')


def test_loading() -> None:
    with upstream("--loading", "60") as address:
        status, reply = ask(address, "/health")
    assert (status, reply["error"]["message"]) == (503, "Loading model")


def test_the_text_of_a_fault() -> None:
    assert Fault.parse("die:5*2") == Fault("die", 5, 2)
    assert Fault.parse("http").after == 500
    for kind in KINDS:
        assert Fault.parse(kind).kind == kind
    for wrong in ("", "unknown", "die:", "die:x", "die:1*"):
        with pytest.raises(ValueError):
            Fault.parse(wrong)
    assert Faults("die:1").choose("eos", "[[stall]]") == Fault("eos")
    assert Faults("die:1").choose(None, "[[stall]]") == Fault("stall")


@pytest.mark.parametrize("wrong", [["--rate", "-1"], ["--fault", "x"], ["--sync", "--spread"]])
def test_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        synthetic_upstream.main(wrong)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("how", ["eof", "term"])
def test_it_ends_when_told(how: str) -> None:
    command = [sys.executable, synthetic_upstream.__file__, "--exit-on-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening on 127.0.0.1:")
        if how == "eof":
            process.stdin.close()
        else:
            process.terminate()
        assert process.wait(TIMEOUT) == 0
