"""Two real servers and three upstreams: each upstream is asked by one of them at a time, a request
runs where there is an upstream of its model, and a key runs once."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from llcuda_net.upstream.model.identity import PROBE_PROMPT
from llcuda_protocol import Attach, Done, Error
from tests.support.cluster.relay import Relay, overlaps, relay
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.raw_client import CREDIT, ask, connected
from tests.support.steady import held_upstream, release
from tests.support.storage.postgres import Postgres
from tools.synthetic.tokens import generation

PROMPT = "tell me a story"


@contextmanager
def upstreams(held: int = 10_000) -> Iterator[tuple[list[Relay], list[str]]]:
    """Three relays, and what is behind each: a model of its own name, with a context of its own
    so that they are told apart."""
    with ExitStack() as stack:
        behind = [
            stack.enter_context(held_upstream(held, "--model", f"m{n}", "--seed", str(n)))
            for n in range(3)
        ]
        yield [stack.enter_context(relay(url)) for url in behind], behind


@contextmanager
def server(url: str, folder: Path, name: str, relays: list[Relay]) -> Iterator[RunningServer]:
    key = folder / f"{name}.key"
    key.write_text(name)
    key.chmod(0o600)
    options = [option for one in relays for option in ("--upstream", one.url)]
    with running_server(
        *("--store", url, "--name", name, "--data-dir", str(folder / name)),
        *("--upstream-api-key-file", str(key), *options),
    ) as running:
        yield running


def http(at: RunningServer, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    named = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(f"http://{at.address}{path}", data, named)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def owned(at: RunningServer) -> set[str]:
    """The upstreams that a server asks."""
    cluster = http(at, "/v1/status")[1]["cluster"]
    return {one["url"] for one in cluster["upstreams"] if one["server"] == cluster["number"]}


def complete(at: RunningServer, model: str, tokens: int = 5, **headers: str) -> tuple[int, Any]:
    body = {"prompt": PROMPT, "max_tokens": tokens, "model": model}
    return http(at, "/v1/completions", body, **headers)


def generated(relays: list[Relay]) -> int:
    """How often an upstream was asked to generate, but for looks at what its model is."""
    probe = PROBE_PROMPT.encode()
    return sum(probe not in one.body for each in relays for one in each.asked)


def asked_by(relays: list[Relay]) -> set[str]:
    return {one.by for each in relays for one in each.asked}


def test_upstreams_have_one_owner_and_requests_and_keys_go_to_it(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with upstreams() as (relays, _), server(url, tmp_path, "a", relays) as a:
        urls = {one.url for one in relays}
        wait_until(lambda: owned(a) == urls, "all upstreams")
        with server(url, tmp_path, "b", relays) as b:
            wait_until(lambda: len(owned(b)) == 1 and len(owned(a)) == 2, "the other one's part")
            assert not owned(a) & owned(b)
            # Each model is served at each server, be its upstream the other one's.
            for at in (a, b):
                for number in range(3):
                    wait_until(
                        lambda: complete(at, f"m{number}")[0] == 200,  # noqa: B023
                        "an answer",
                    )
                    body = {"input": ["one", "two"], "model": f"m{number}"}
                    status, answer = http(at, "/v1/embeddings", body)
                    assert (status, len(answer["data"])) == (200, 2)
            assert asked_by(relays) == {"a", "b"}
            # One key at both at once, several times.
            answers: list[tuple[int, Any]] = []

            def send(at: RunningServer) -> None:
                answers.append(complete(at, "m0", 20, Idempotency_Key="the-key"))

            threads = [threading.Thread(target=send, args=(at,)) for at in (a, b, a, b)]
            before = generated(relays)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert [status for status, _ in answers] == [200] * 4
            assert len({one["id"] for _, one in answers}) == 1
            assert generated(relays) == before + 1
            # And again, when it is over.
            assert {
                complete(at, "m0", 20, Idempotency_Key="the-key")[1]["id"] for at in (a, b)
            } == {answers[0][1]["id"]}
            assert generated(relays) == before + 1
            conflict = complete(b, "m0", 21, Idempotency_Key="the-key")
            assert conflict[0] == 409
        for each in relays:
            assert not overlaps(each.asked)


def test_a_killed_servers_upstreams_and_streams_are_taken_over(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with upstreams(held=50) as (relays, behind), server(url, tmp_path, "b", relays) as b:
        with server(url, tmp_path, "a", relays) as a:
            wait_until(lambda: len(owned(a)) == 1 and len(owned(b)) == 2, "their parts")
            (mine,) = owned(a)
            place = [one.url for one in relays].index(mine)
            with connected(a.port) as client:
                client.send(replace(ask(PROMPT, n_predict=200), model=f"m{place}"))
                begun, seen = client.begun(20)
                a.process.kill()
                a.process.wait()
        for one in behind:
            release(one)
        wait_until(lambda: owned(b) == {one.url for one in relays}, "all upstreams")
        with connected(b.port) as client:
            client.send(Attach(1, begun.id, CREDIT, first=len(seen), epoch=begun.epoch))
            rest, done = client.until(Done)
            assert isinstance(done, Done)
        assert "".join(seen + rest) == generation(PROMPT, 200, place)
        for each in relays:
            assert not overlaps(each.asked)


def test_what_waits_in_vain_goes_to_a_server_that_reaches_its_upstream(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        upstreams(held=50) as (relays, behind),
        server(url, tmp_path, "b", relays) as b,
        server(url, tmp_path, "a", relays) as a,
    ):
        wait_until(lambda: len(owned(a)) == 1 and len(owned(b)) == 2, "their parts")
        (mine,) = owned(a)
        place = [one.url for one in relays].index(mine)
        with connected(a.port) as client:
            client.send(replace(ask(PROMPT, n_predict=200), model=f"m{place}"))
            _, seen = client.begun(20)
            for one in behind:
                release(one)
            relays[place].cut_off("a")
            # The same stream goes on: this server follows what it has handed over.
            rest, done = client.until(Error | Done)
            assert isinstance(done, Done), done
        assert "".join(seen + rest) == generation(PROMPT, 200, place)
        assert http(a, "/v1/status")[1]["cluster"]["handed_over"] == 1
        assert owned(b) == {one.url for one in relays}
        for each in relays:
            assert not overlaps(each.asked)
