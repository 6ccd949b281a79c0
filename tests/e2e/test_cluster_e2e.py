"""Several real servers on one PostgreSQL: one of them dies, sleeps or stops, and others go on."""

from __future__ import annotations

import json
import shutil
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from llcuda_protocol import Accepted, Attach, Done, Error, Tokens
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.raw_client import CREDIT, ask, connected
from tests.support.steady import held_upstream, release
from tests.support.storage.postgres import Postgres
from tools.synthetic.tokens import generation

_PROMPTS = ("tell me a story", "name three rivers", "count the stars")


def cluster_of(server: RunningServer) -> dict[str, Any]:
    """What a server says of its cluster."""
    url = f"http://{server.address}/v1/status"
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                found = json.loads(answer.read())["cluster"]
                assert isinstance(found, dict)
                return found
        except urllib.error.HTTPError as error:  # its lease was lost in this moment
            if error.code != 503:
                raise
            time.sleep(0.05)


def attached(port: int, begun: Accepted, seen: list[str]) -> tuple[list[str], Any]:
    """The rest of a generation, and its end, whichever server has it at last."""
    end = time.monotonic() + PATIENCE
    rest: list[str] = []
    while time.monotonic() < end:
        with connected(port) as client:
            first = len(seen) + len(rest)
            client.send(Attach(1, begun.id, CREDIT, first=first, epoch=begun.epoch))
            event = client.next()
            if isinstance(event, Accepted):
                begun = event
                pieces, event = client.until(Done | Error)
                rest += pieces
            if isinstance(event, Done):
                return rest, event
            assert isinstance(event, Error), event
            assert event.code == "lease_lost", event
            assert event.retry
        time.sleep(0.05)
    raise AssertionError("nobody has it")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_server_had_goes_on_at_another_one(
    postgres: Postgres, tmp_path: Path, how: signal.Signals
) -> None:
    url = postgres.new_database()
    with held_upstream(60, "--slots", "8") as upstream:
        shared = ("--upstream", upstream, "--store", url, "--drain-seconds", "0")
        with (
            running_server(*shared, "--data-dir", str(tmp_path / "a"), "--name", "a") as one,
            running_server(*shared, "--data-dir", str(tmp_path / "b"), "--name", "b") as other,
        ):
            begun = []
            for prompt in _PROMPTS:
                with connected(one.port) as client:
                    client.send(ask(prompt, n_predict=150))
                    begun.append(client.begun(20))
            time.sleep(6)  # the other one was a member for long enough
            one.process.send_signal(how)
            one.process.wait(PATIENCE)
            shutil.rmtree(tmp_path / "a")
            killed = time.monotonic()
            release(upstream)
            for prompt, (accepted, seen) in zip(_PROMPTS, begun, strict=True):
                rest, done = attached(other.port, accepted, seen)
                print(how.name, f"{time.monotonic() - killed:.2f} s")
                assert isinstance(done, Done), (done, other.log())
                assert "".join(seen + rest) == generation(prompt, 150)
            found = cluster_of(other)
            assert [member["name"] for member in found["members"]] == ["b"]
            assert found["taken_over"] == {"servers": 1, "generations": 3}


@pytest.mark.parametrize("level", ["cluster", "disk"])
def test_a_server_that_slept_too_long_shows_nothing_more_and_begins_anew(
    postgres: Postgres, tmp_path: Path, level: str
) -> None:
    url = postgres.new_database()
    with held_upstream(60, "--slots", "8") as upstream:
        shared = ("--upstream", upstream, "--store", url, "--durability", level)
        with (
            running_server(*shared, "--data-dir", str(tmp_path / "a"), "--name", "a") as one,
            running_server(*shared, "--data-dir", str(tmp_path / "b"), "--name", "b") as other,
            connected(one.port) as client,
        ):
            first = cluster_of(one)["number"]
            client.send(ask(_PROMPTS[0], n_predict=150))
            begun, seen = client.begun(60)
            time.sleep(6)
            one.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: cluster_of(other)["taken_over"]["servers"] == 1, "the takeover")
            release(upstream)
            rest, done = attached(other.port, begun, seen)
            assert isinstance(done, Done), done
            assert "".join(seen + rest) == generation(_PROMPTS[0], 150)
            one.process.send_signal(signal.SIGCONT)
            event = client.next()
            while not isinstance(event, Error):
                assert not isinstance(event, Tokens), event
                event = client.next()
            assert event.code == "lease_lost"
            wait_until(lambda: cluster_of(one)["number"] > first, "a new life")
            wait_until(lambda: cluster_of(one)["standing"] == "member", "its beginning")
            # It serves, and knows what became of its generation.
            with connected(one.port) as again:
                again.send(ask(_PROMPTS[1], n_predict=10))
                accepted = again.until(Accepted)[1]
                # The other server has the upstream by now, and may get it.
                rest, done = attached(one.port, accepted, [])
                assert isinstance(done, Done), done
                assert "".join(rest) == generation(_PROMPTS[1], 10)
                again.send(Attach(2, begun.id, CREDIT))
                end = again.next()
                while getattr(end, "stream", 0) != 2:
                    end = again.next()
                pieces, over = again.until(Done | Error)
                assert isinstance(over, Done), over
                assert "".join(pieces) == generation(_PROMPTS[0], 150)


def test_a_server_that_slept_and_was_not_missed_goes_on(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    with held_upstream(60) as upstream:
        shared = ("--upstream", upstream, "--store", url)
        with (
            running_server(*shared, "--data-dir", str(tmp_path)) as server,
            connected(server.port) as client,
        ):
            first = cluster_of(server)["number"]
            client.send(ask(_PROMPTS[0], n_predict=150))
            begun, seen = client.begun(60)
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(5)
            server.process.send_signal(signal.SIGCONT)
            assert client.until(Error)[1].code == "lease_lost"
            release(upstream)
            rest, done = attached(server.port, begun, seen)
            assert isinstance(done, Done), done
            assert "".join(seen + rest) == generation(_PROMPTS[0], 150)
            assert cluster_of(server)["number"] == first
