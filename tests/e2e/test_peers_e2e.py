"""Two real servers on one PostgreSQL: what one runs is read, listed and stopped at the other."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llcuda_net import sync
from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Delete,
    Deleted,
    Done,
    Error,
    Generate,
    GoAway,
    Hello,
    ListGenerations,
    Listing,
    Splice,
    Welcome,
)
from tests.support.processes import PATIENCE, RunningServer, run, running_server, wait_until
from tests.support.raw_client import CREDIT, RawClient, ask, connected
from tests.support.steady import ENDLESS, endless_upstream, held_upstream, release
from tests.support.storage.postgres import Postgres
from tools.synthetic.tokens import generation

PROMPT = "tell me a story"
TOKENS = (
    "ann-token-of-16-chars name=ann\nbob-token-of-16-chars name=bob\n"
    "root-token-16-chars name=root role=admin\n"
)
ANN, BOB, ROOT = (line.split()[0] for line in TOKENS.splitlines())


class Pair(NamedTuple):
    """Two servers, and the URL of their upstream."""

    a: RunningServer
    b: RunningServer
    upstream: str


@contextmanager
def pair(url: str, folder: Path, upstream: str, *options: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        a, b = (
            stack.enter_context(
                running_server(
                    *("--store", url, "--name", name, "--data-dir", str(folder / name)),
                    *("--upstream", upstream, *options),
                )
            )
            for name in "ab"
        )
        yield Pair(a, b, upstream)


def http(
    server: RunningServer, method: str, path: str, body: Any = None, token: str | None = None
) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.address}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def settled(
    server: RunningServer, method: str, path: str, token: str | None = None
) -> tuple[int, Any]:
    """As `http`, again while a server has not answered the other one in time."""
    while (answer := http(server, method, path, token=token))[0] == 503:
        pass
    return answer


def attached(client: RawClient, streams: Iterator[int], id_: str) -> Accepted | Error:
    """The answer to an attach, likewise."""
    while True:
        client.send(Attach(next(streams), id_, CREDIT))
        answer: Accepted | Error = client.until(Accepted | Error)[1]
        if isinstance(answer, Accepted) or not answer.retry:
            return answer


def events_of(body: bytes) -> list[bytes]:
    """Without the times, of which some are those of the reader."""
    events = [re.sub(rb'"timings":{[^}]*}', b"", one) for one in body.split(b"\n\n")]
    return [one for one in events if not one.startswith(b":")]


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    path.chmod(0o600)
    return str(path)


def test_a_stream_of_one_server_is_read_at_the_other_over_both_protocols(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        held_upstream(20) as upstream,
        pair(url, tmp_path, upstream) as (a, b, _),
        connected(a.port) as at_a,
        connected(b.port) as at_b,
    ):
        at_a.send(ask(PROMPT, n_predict=200))
        begun, seen = at_a.begun(10)
        at_b.send(Attach(1, begun.id, CREDIT))
        there, early = at_b.begun(10)
        assert (there.id, there.level, there.epoch) == (begun.id, begun.level, begun.epoch)
        status, document = http(b, "GET", f"/v1/generations/{begun.id}")
        assert status == 200
        running = json.loads(document)
        assert running["state"] == "running"
        assert running["request"]["prompt"] == PROMPT
        release(upstream)
        rest, done = at_a.until(Done)
        late, done_there = at_b.until(Done)
        text = generation(PROMPT, 200)
        assert "".join(seen + rest) == text
        assert seen + rest == early + late
        assert (done.reason, done.usage, done.id, done.model) == (
            done_there.reason,
            done_there.usage,
            done_there.id,
            done_there.model,
        )
        events = [http(one, "GET", f"/v1/generations/{begun.id}/events")[1] for one in (a, b)]
        assert events[0] == events[1]


def test_events_over_http_are_the_same_bytes_at_both_servers(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    body = {"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    body |= {"max_tokens": 60, "temperature": 0}
    with held_upstream(20) as upstream, pair(url, tmp_path, upstream) as (a, b, _):
        headers = {"Content-Type": "application/json"}
        body.pop("model")
        request = urllib.request.Request(
            f"http://{a.address}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as at_a:
            id_ = at_a.headers["x-llcuda-generation"]
            path = f"http://{b.address}/v1/generations/{id_}/events"
            with urllib.request.urlopen(path, timeout=PATIENCE) as at_b:
                assert at_b.headers["x-llcuda-generation"] == id_
                release(upstream)
                events = [events_of(answer.read()) for answer in (at_a, at_b)]
        assert len(events[0]) > 60
        assert events[0] == events[1]


def test_what_a_page_at_the_other_server_shows_grows_and_ends(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        held_upstream(20) as upstream,
        pair(url, tmp_path, upstream) as (a, b, _),
        connected(a.port) as at_a,
    ):
        at_a.send(ask(PROMPT, n_predict=60))
        begun, _ = at_a.begun(10)
        path = f"http://{b.address}/v1/events?generations={begun.id}:0"
        html, ended, released = "", None, False
        with urllib.request.urlopen(path, timeout=PATIENCE) as events:
            while ended is None:
                line = events.readline()
                if not line.startswith(b"data: "):
                    continue
                told = json.loads(line[6:]).get("answers", {}).get(begun.id, {})
                shown = told.get("open") or {}
                html = shown.get("html", html + shown.get("more", ""))
                if html and not released:
                    time.sleep(1.5)  # for longer than it is fed while nobody wants it
                    release(upstream)
                    released = True
                html = "".join(block["html"] for block in told.get("blocks", ())) or html
                ended = told.get("ended")
        assert re.sub("<[^>]*>", "", html).split() == generation(PROMPT, 60).split()


def test_readers_elsewhere_go_on_when_the_server_is_killed_for_good(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        held_upstream(20) as upstream,
        pair(url, tmp_path, upstream) as (a, b, _),
        connected(a.port) as at_a,
        connected(b.port, greet=False) as at_b,
        connected(b.port) as earlier,
    ):
        at_a.send(ask(PROMPT, n_predict=200))
        begun, _ = at_a.begun(5)
        at_b.greet(None, "epochs")
        for client in (at_b, earlier):
            client.send(Attach(1, begun.id, CREDIT))
        _, early = at_b.begun(10)
        path = f"http://{b.address}/v1/generations/{begun.id}/events"
        with urllib.request.urlopen(path, timeout=PATIENCE) as events:
            a.process.kill()
            a.process.wait()
            shutil.rmtree(tmp_path / "a")
            release(upstream)
            before, splice = at_b.until(Splice)
            late, done = at_b.until(Done | Error)
            told = events_of(events.read())
        assert isinstance(done, Done)
        assert done.reason == "length"
        whole = early + before + late
        assert "".join(whole) == generation(PROMPT, 200)
        assert (splice.position, splice.epoch > 0) == (len(early + before), True)
        assert told == events_of(http(b, "GET", f"/v1/generations/{begun.id}/events")[1])
        # What it has read was made in two epochs, and it can say so.
        at_b.send(Attach(2, begun.id, CREDIT, first=150, epoch=splice.epoch))
        assert at_b.until(Done)[0] == whole[150:]
        # A client that does not know of epochs in the midst of a stream comes again.
        seen, left = earlier.until(Error)
        assert (left.code, left.retry) == ("lease_lost", True)
        earlier.send(Attach(2, begun.id, CREDIT, first=len(seen), epoch=begun.epoch))
        assert seen + earlier.until(Done)[0] == whole


def test_readers_elsewhere_are_served_while_a_server_drains(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    options = ("--drain-seconds", str(10 * PATIENCE))
    with (
        held_upstream(20) as upstream,
        pair(url, tmp_path, upstream, *options) as (a, b, _),
        connected(a.port) as at_a,
        connected(b.port) as at_b,
        connected(b.port) as late,
    ):
        at_a.send(ask(PROMPT, n_predict=200))
        begun, seen = at_a.begun(10)
        at_b.send(Attach(1, begun.id, CREDIT))
        _, early = at_b.begun(10)
        a.process.terminate()
        seen += at_a.until(GoAway)[0]
        late.send(Attach(1, begun.id, CREDIT))
        _, some = late.begun(10)
        # Nobody else is let in.
        with connected(a.port, greet=False) as client:
            refused = client.greet()
            assert isinstance(refused, Error)
            assert (refused.code, refused.retry) == ("shutting_down", True)
        assert http(a, "GET", f"/v1/generations/{begun.id}")[0] == 503
        assert http(a, "GET", "/readyz")[0] == 503
        release(upstream)
        whole = seen + at_a.until(Done)[0]
        assert "".join(whole) == generation(PROMPT, 200)
        for client, first in ((at_b, early), (late, some)):
            rest, done = client.until(Done | Error)
            assert isinstance(done, Done)
            assert first + rest == whole
        assert a.process.wait(PATIENCE) == 0


def test_a_request_elsewhere_waits_for_what_a_draining_server_gives(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    options = ("--drain-seconds", str(10 * PATIENCE))
    with (
        held_upstream(20) as upstream,
        pair(url, tmp_path, upstream, *options) as (a, b, _),
        connected(a.port) as at_a,
        connected(b.port) as at_b,
    ):
        owner, other, at_owner, at_other = (a, b, at_a, at_b)
        document = http(a, "GET", "/v1/status")[1]
        cluster = json.loads(document)["cluster"]
        if cluster["upstreams"][0]["server"] != cluster["number"]:
            owner, other, at_owner, at_other = (b, a, at_b, at_a)
        at_owner.send(ask(PROMPT, n_predict=60))
        _, seen = at_owner.begun(10)
        owner.process.terminate()
        seen += at_owner.until(GoAway)[0]
        at_other.send(ask("another", n_predict=5))
        time.sleep(2)  # for longer than loads are exchanged in
        release(upstream)
        assert "".join(seen + at_owner.until(Done)[0]) == generation(PROMPT, 60)
        pieces, done = at_other.until(Done | Error)
        assert isinstance(done, Done), done
        assert "".join(pieces) == generation("another", 5)
        assert owner.process.wait(PATIENCE) == 0
        assert other.process.poll() is None


def test_a_background_response_is_read_from_any_event_on_at_the_other_server(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    body = {"input": "hi", "background": True, "stream": True, "max_output_tokens": 60}
    with held_upstream(20) as upstream, pair(url, tmp_path, upstream) as (a, b, _):
        request = urllib.request.Request(
            f"http://{a.address}/v1/responses",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as at_a:
            first = [at_a.readline() for _ in range(30)]
            id_ = f"resp_{at_a.headers['x-llcuda-generation']}"
            assert json.loads(http(b, "GET", f"/v1/responses/{id_}")[1])["status"] == "in_progress"
            items = json.loads(http(b, "GET", f"/v1/responses/{id_}/input_items")[1])
            assert items["data"][0]["content"][0]["text"] == "hi"
            path = f"http://{b.address}/v1/responses/{id_}?stream=true&starting_after=4"
            with urllib.request.urlopen(path, timeout=PATIENCE) as at_b:
                release(upstream)
                whole = b"".join(first) + at_a.read()
                there = at_b.read()
        numbers = [int(one) for one in re.findall(rb'"sequence_number":(\d+)', there)]
        assert numbers == list(range(5, numbers[-1] + 1))
        assert len(numbers) > 60
        assert events_of(whole)[-len(numbers) :] == events_of(there)[-len(numbers) :]


def test_a_client_with_a_list_goes_on_at_the_other_server(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with held_upstream(20) as upstream, pair(url, tmp_path, upstream) as (a, b, _):
        servers = [a.address, b.address]
        with sync.connect(servers) as client:
            with client.generate(raw=PROMPT, n_predict=100, temperature=0) as stream:
                pieces = iter(stream)
                begun = [next(pieces) for _ in range(5)]
                assert client.server == a.address
                a.process.kill()
                release(upstream)
                text = "".join([*begun, *pieces])
            assert client.server == b.address
        assert text == generation(PROMPT, 100)
        done = run("client", "--server", ",".join(servers), "--raw", "--max-tokens", "5", PROMPT)
        assert done.returncode == 0, done.stderr
        assert generation(PROMPT, 5).strip() in done.stdout


def test_cancelled_listed_and_deleted_from_the_other_server(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        endless_upstream() as upstream,
        pair(url, tmp_path, upstream) as (a, b, _),
        connected(a.port) as at_a,
        connected(b.port) as at_b,
        connected(b.port) as reader,
    ):
        at_a.send(ask(PROMPT, n_predict=ENDLESS))
        begun, _ = at_a.begun(3)
        reader.send(Attach(1, begun.id, CREDIT))
        reader.begun(3)
        at_b.send(ListGenerations(1))
        _, listing = at_b.until(Listing | Done)
        assert [(one["id"], one["state"]) for one in listing.entries] == [(begun.id, "running")]
        at_b.until(Done)
        at_b.send(Delete(2, begun.id))
        _, refused = at_b.until(Error | Deleted)
        assert "still runs" in refused.message
        at_b.send(Attach(3, begun.id, 0), Cancel(3))
        _, done = at_b.until(Done)
        assert done.reason == "cancelled"
        assert at_a.until(Done)[1].reason == "cancelled"
        assert reader.until(Done)[1].reason == "cancelled"
        at_b.send(Delete(4, begun.id))
        at_b.until(Deleted)
        at_a.send(Attach(2, begun.id, CREDIT))
        assert at_a.until(Error)[1].code == "unknown_generation"


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_cancel_that_a_server_answers_comes_though_its_lease_was_lost(
    taken_over: bool, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        endless_upstream() as upstream,
        ExitStack() as stack,
    ):

        def server(name: str) -> RunningServer:
            options = ("--store", url, "--name", name, "--data-dir", str(tmp_path / name))
            return stack.enter_context(running_server(*options, "--upstream", upstream))

        a = server("a")
        at_a = stack.enter_context(connected(a.port))
        begun: list[Any] = []
        for number in (1, 3):
            at_a.send(ask(PROMPT, stream=number, n_predict=ENDLESS))
            begun.append(at_a.until(Accepted)[1].id)
        b = server("b") if taken_over else a
        time.sleep(6)  # it is a member for long enough to take over
        a.process.send_signal(signal.SIGSTOP)
        paths = [f"/v1/generations/{begun[0]}/cancel", f"/v1/responses/resp_{begun[1]}/cancel"]
        for path in paths:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", a.port)))
            client.sendall(
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode()
            )
            stack.callback(client.close)
            begun.append(client)

        def cancelled(id_: str) -> bool:
            found = json.loads(settled(b, "GET", f"/v1/generations/{id_}")[1])
            return bool(found["state"] == "cancelled")

        def adopted() -> bool:
            report = json.loads(http(b, "GET", "/v1/status")[1])
            return bool(report["cluster"]["taken_over"]["servers"])

        if taken_over:
            wait_until(adopted, "the takeover")
        else:
            time.sleep(5)
        a.process.send_signal(signal.SIGCONT)
        for id_, client in zip(begun[:2], begun[2:], strict=True):
            head = client.recv(20)
            if not head.startswith(b"HTTP/1.1 200"):
                assert head.startswith(b"HTTP/1.1 503")
                assert settled(a, "POST", f"/v1/generations/{id_}/cancel")[0] == 200

            wait_until(partial(cancelled, id_), "the cancel", 60)


@pytest.mark.parametrize("level", ["memory", "disk"])
def test_what_is_in_memory_alone_is_found_too(
    level: str, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        held_upstream(10) as upstream,
        pair(url, tmp_path, upstream) as (a, b, _),
        connected(a.port) as at_a,
        connected(b.port) as at_b,
    ):
        at_a.send(Generate(1, CREDIT, prompt=PROMPT, params={"n_predict": 30}, level=level))
        begun, seen = at_a.begun(5)
        at_b.send(Attach(1, begun.id, CREDIT))
        _, early = at_b.begun(5)
        release(upstream)
        rest, _ = at_a.until(Done)
        late, _ = at_b.until(Done)
        assert seen + rest == early + late
        if level == "memory":  # it lingers there, and is nowhere else
            at_b.send(Attach(2, begun.id, CREDIT))
            again, _ = at_b.until(Done)
            assert again == seen + rest
            at_b.send(Delete(3, begun.id))
            at_b.until(Deleted)
            at_a.send(Attach(2, begun.id, CREDIT))
            assert at_a.until(Error)[1].code == "unknown_generation"


def greeted(client: RawClient, token: str) -> RawClient:
    assert isinstance(client.greet(token), Welcome)
    return client


def test_users_see_nothing_of_other_users_from_anywhere(
    postgres: Postgres, tmp_path: Path, tokens: str
) -> None:
    url = postgres.new_database()
    options = ("--auth-token-file", tokens)
    with (
        endless_upstream() as upstream,
        pair(url, tmp_path, upstream, *options) as (a, b, _),
        connected(a.port, greet=False) as ann,
        connected(b.port, greet=False) as bob,
        connected(b.port, greet=False) as root,
        connected(b.port, greet=False) as ann_at_b,
    ):
        greeted(ann, ANN)
        for level, stream in ((None, 1), ("memory", 2)):
            ann.send(
                Generate(stream, CREDIT, prompt=PROMPT, params={"n_predict": ENDLESS}, level=level)
            )
        ids = [ann.until(Accepted)[1].id for _ in range(2)]
        greeted(bob, BOB)
        greeted(root, ROOT)
        greeted(ann_at_b, ANN)
        streams = count(1)
        for id_ in ids:
            # Whether one of hers is followed at this server already makes no difference.
            for client in (bob, root, ann_at_b, bob):
                answer = attached(client, streams, id_)
                if client is bob:
                    assert isinstance(answer, Error)
                    assert answer.code == "unknown_generation"
                else:
                    assert isinstance(answer, Accepted), answer
                    assert answer.id == id_
            assert settled(b, "GET", f"/v1/generations/{id_}", BOB)[0] == 404
            assert settled(b, "POST", f"/v1/generations/{id_}/cancel", BOB)[0] == 404
            assert settled(b, "DELETE", f"/v1/generations/{id_}", BOB)[0] == 404
            assert settled(b, "GET", f"/v1/generations/{id_}", ANN)[0] == 200

        def lists(token: str, expected: set[str]) -> bool:
            status, body = http(b, "GET", "/v1/generations", token=token)
            assert status == 200
            found = {one["id"] for one in json.loads(body)["data"]}
            assert found <= expected
            return found == expected

        everybody: list[tuple[str, set[str]]] = [(BOB, set()), (ANN, {*ids}), (ROOT, {*ids})]
        for token, expected in everybody:
            # What a server has that does not answer in time is left out.
            wait_until(partial(lists, token, expected), token)


def test_a_client_cannot_pretend_to_be_a_peer(
    postgres: Postgres, tmp_path: Path, tokens: str
) -> None:
    url = postgres.new_database()
    nonce = bytes(16)
    with (
        endless_upstream() as upstream,
        running_server(
            *("--store", url, "--data-dir", str(tmp_path / "a"), "--upstream", upstream),
            *("--auth-token-file", tokens),
        ) as server,
    ):
        for token in (None, ANN, ROOT, "0" * 64):
            for user in ("ann", None):
                peer = {"server": 1, "to": 1, "nonce": nonce} | ({"user": user} if user else {})
                with connected(server.port, greet=False) as client:
                    client.send(Hello([1], 4 << 20, 256, token, peer=peer))
                    answer = client.next()
                    assert isinstance(answer, Error)
                    assert answer.code == "unauthorized"
        with connected(server.port, greet=False) as client:
            greeted(client, ANN)
            client.send(
                Generate(1, CREDIT, prompt="x", peer={"id": "mine"}),
                Attach(2, "x", CREDIT, peer={"on_disconnect": 0}),
            )
            for _ in range(2):
                _, answer = client.until(Error)
                assert answer.code == "invalid_request"
                assert "servers of a cluster" in answer.message
