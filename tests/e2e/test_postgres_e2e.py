"""A real server whose results are in PostgreSQL, and `llcuda results` beside it."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

from llcuda_protocol import Attach, Done, Error
from tests.support.processes import run, running_server, wait_until
from tests.support.raw_client import CREDIT, ask, connected
from tests.support.steady import held_upstream, release
from tests.support.storage.postgres import Postgres
from tools.synthetic.tokens import generation


def results(url: str, *arguments: str) -> list[dict[str, object]]:
    done = run("main", "results", *arguments, "--json", env={"LLCUDA_STORE": url})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_results_are_in_the_database_and_streams_survive_the_server(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    prompt = "tell me a story"
    with held_upstream(100) as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path), "--store", url)
        with running_server(*arguments) as server, connected(server.port) as client:
            client.send(ask(prompt, n_predict=8))
            client.until(Done)
            client.send(ask(prompt, 2, n_predict=200))
            begun, seen = client.begun(40)
            server.process.kill()
            server.process.wait()
        assert len(results(url, "list")) == 1
        release(upstream)
        with running_server(*arguments) as server, connected(server.port) as client:
            client.send(Attach(1, begun.id, CREDIT, first=len(seen), epoch=begun.epoch))
            rest, _ = client.until(Done)
            assert "".join(seen + rest) == generation(prompt, 200)
            assert {str(one["id"]) for one in results(url, "list")} >= {begun.id}
            wait_until(lambda: len(results(url, "search", "story")) == 2, "the index")
    assert not (tmp_path / "results.db").exists()
    (shown,) = results(url, "show", begun.id[:20])
    assert shown["id"] == begun.id
    assert results(url, "verify")[0]["ok"] is True
    assert results(url, "delete", begun.id, "--yes")[0]["deleted"] is True
    assert len(results(url, "list")) == 1


def test_a_database_that_is_not_there_or_a_wrong_store_is_said(tmp_path: Path) -> None:
    gone = f"postgresql:///x?host={tmp_path}&password=secret"
    for command in (
        ("server", "--port", "0", "--data-dir", str(tmp_path)),
        ("main", "results", "list"),
    ):
        done = run(*command, "--store", gone)
        assert done.returncode != 0
        assert "does not answer" in done.stderr
        assert "secret" not in done.stderr
        done = run(*command, "--store", "mysql://ann:secret@host/x")
        assert done.returncode == 2
        assert "postgresql://user@host/name" in done.stderr
        assert "secret" not in done.stderr


def test_a_database_that_is_away_for_a_while(own_postgres: Postgres, tmp_path: Path) -> None:
    url = own_postgres.new_database()
    prompt = "tell me a story"
    with held_upstream(20) as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path), "--store", url)
        with running_server(*arguments) as server, connected(server.port) as client:
            client.send(ask(prompt, n_predict=60))
            begun, seen = client.begun(10)
            own_postgres.kill()
            release(upstream)
            rest, failed = client.until(Error | Done)
            # Nobody saw what the database does not have; without it the lease is over, too.
            seen += rest
            assert isinstance(failed, Error)
            assert (failed.code, failed.retry) == ("lease_lost", True)
            client.send(ask(prompt, 2, n_predict=8))
            _, refused = client.until(Error | Done)
            assert isinstance(refused, Error)
            own_postgres.start()
            streams = count(3)

            def read_on() -> bool:
                attach = Attach(next(streams), begun.id, CREDIT, len(seen), begun.epoch)
                client.send(attach)
                more, last = client.until(Error | Done)
                seen.extend(more)
                return isinstance(last, Done)

            wait_until(read_on, "the rest")
            assert "".join(seen) == generation(prompt, 60)
    assert [one["id"] for one in results(url, "list")] == [begun.id]
