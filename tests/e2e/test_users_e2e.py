"""A server process with a token file: two users and an admin, each with what is theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Done,
    Error,
    ErrorCode,
    Hello,
    ListGenerations,
    Listing,
    Tokens,
    Welcome,
)
from tests.support.processes import RunningServer, run, running_server
from tests.support.raw_client import CREDIT, RawClient, ask, connected
from tests.support.steady import ENDLESS, endless_upstream
from tools import synthetic_upstream

TOKENS = """\
# who may come in
secret-of-ann  name=ann weight=2
other-of-ann   name=ann
secret-of-bob  name=bob concurrent=3
secret-of-root name=root role=admin   # sees everything
"""
PEOPLE = ("ann", "bob", "root")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKENS, encoding="utf-8")
    return path


@contextmanager
def come_in(server: RunningServer, token: str) -> Iterator[RawClient]:
    with connected(server.port, greet=False) as client:
        welcome = client.greet(token)
        assert isinstance(welcome, Welcome), welcome
        assert "list" in welcome.features
        yield client


def begun(client: RawClient, stream: int, prompt: str, **changes: Any) -> str:
    client.send(replace(ask(prompt, stream, n_predict=4), **changes))
    _, accepted = client.until(Accepted)
    id_: str = accepted.id
    return id_


def listed(client: RawClient, stream: int, **changes: Any) -> list[dict[str, Any]]:
    client.send(ListGenerations(stream, **changes))
    found: list[dict[str, Any]] = []
    while not isinstance(event := client.next(), Done):
        assert isinstance(event, Listing), event
        found += event.entries
    return found


def test_each_user_has_what_is_theirs_and_an_admin_sees_all(tokens: Path, tmp_path: Path) -> None:
    with synthetic_upstream.running("--rate", "0", "--slots", "8") as upstream:
        arguments = ("--upstream", upstream, "--auth-token-file", str(tokens))
        kept = ("--data-dir", str(tmp_path))
        ids = {}
        with running_server(*arguments, *kept) as server:
            for wrong in (None, "", "secret-of-cid", "secret-of-ann  name=ann", "name=ann"):
                with connected(server.port, greet=False) as client:
                    client.send(Hello([1], 4 << 20, 256, wrong))
                    _, error = client.until(Error)
                    assert error.code == ErrorCode.UNAUTHORIZED
            for name in PEOPLE:  # the same request with the same key
                with come_in(server, f"secret-of-{name}") as client:
                    ids[name] = begun(client, 1, "tell me", key="k")
                    client.until(Done)
            assert len(set(ids.values())) == 3
            server.process.kill()
            server.process.wait()
        with running_server(*arguments, *kept) as server:
            with come_in(server, "other-of-ann") as client:
                assert begun(client, 1, "tell me", key="k") == ids["ann"]
                client.until(Done)
            with come_in(server, "secret-of-bob") as bob:
                bob.send(Attach(1, ids["ann"], CREDIT))
                _, error = bob.until(Error)
                assert error.code == ErrorCode.UNKNOWN_GENERATION
                assert [entry["id"] for entry in listed(bob, 3)] == [ids["bob"]]
                bob.send(ListGenerations(5, before=ids["ann"]))
                _, error = bob.until(Error)
                assert error.code == ErrorCode.UNKNOWN_GENERATION
            with come_in(server, "secret-of-root") as root:
                assert [(e["id"], e["owner"]) for e in listed(root, 1)] == [
                    (ids[name], name) for name in reversed(PEOPLE)
                ]
                root.send(Attach(3, ids["bob"], CREDIT))
                pieces, _ = root.until(Done)
                assert len(pieces) == 4
            log = server.log()
    assert not [word for word in TOKENS.split() if "-of-" in word and word in log]


def test_nobody_stops_what_another_runs(tokens: Path) -> None:
    with (
        endless_upstream("--slots", "8") as upstream,
        running_server("--upstream", upstream, "--auth-token-file", str(tokens)) as server,
        come_in(server, "secret-of-ann") as ann,
        come_in(server, "other-of-ann") as also_ann,
        come_in(server, "secret-of-bob") as bob,
        come_in(server, "secret-of-root") as root,
    ):
        ann.send(ask("an endless story", n_predict=ENDLESS))
        _, accepted = ann.until(Accepted)
        ann.until(Tokens)
        bob.send(Attach(1, accepted.id, CREDIT), Cancel(1))
        _, error = bob.until(Error)
        assert error.code == ErrorCode.UNKNOWN_GENERATION
        (entry,) = listed(also_ann, 1, state="running")
        assert entry["id"] == accepted.id
        assert listed(bob, 3, state="running") == []
        root.send(Attach(1, accepted.id, CREDIT), Cancel(1))
        root.until(Done)
        _, done = ann.until(Done)
        assert done.reason == "cancelled"


def test_a_token_file_that_is_wrong_is_one_line_without_the_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("fine\nsecret-of-ann weight=heavy\n", encoding="utf-8")
    ended = run("server", "--port", "0", "--auth-token-file", str(path))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"llcuda-server: error: token file {path}, line 2: weight must be a number above 0, "
        "such as 1.5\n"
    )


def test_a_token_file_that_others_can_read_and_short_tokens_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("short-secret name=ann\nlong-secret-of-someone name=bob\n", encoding="utf-8")
    path.chmod(0o644)
    upstream = ("--upstream", "http://127.0.0.1:9")
    key = tmp_path / "key"
    key.touch(0o640)
    key.write_text("key-of-upstream")
    more = ("--auth-token-file", str(path), "--upstream-api-key-file", str(key))
    with running_server(*upstream, *more) as server:
        assert server.stop() == 0
        log = server.log()
    entries = [json.loads(line) for line in log.splitlines()]
    opened = {e["path"]: e["mode"] for e in entries if e["event"] == "secret_open_to_others"}
    assert opened == {str(path): "644", str(key): "640"}
    assert [e["lines"] for e in entries if e["event"] == "tokens_short"] == [[1]]
    assert "key-of-upstream" not in log
    assert "secret-of-someone" not in log
    assert "short-secret" not in log
