"""llcuda-server as a process: what it refuses, how it ends, and what it survives."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from llcuda_protocol import (
    Done,
    Error,
    ErrorCode,
    GoAway,
    Report,
    Splice,
    Status,
    Tokens,
    Welcome,
)
from tests.support.forked import run_servers
from tests.support.processes import (
    PATIENCE,
    RunningServer,
    children,
    command,
    environment,
    read_line,
    run,
    running_server,
    wait_until,
)
from tests.support.raw_client import ask, connected
from tests.support.steady import held_upstream, release
from tools import synthetic_upstream

NOBODY = "http://127.0.0.1:9"
STORY = "Once upon a time"
#: Hosts that are not this machine.
NOWHERE = ("192.0.2.1", "a" * 70)


# -- what is refused --------------------------------------------------------------------------


class Refusal(NamedTuple):
    """A command line that is refused, words of the reason, and the exit code."""

    arguments: Sequence[str]
    words: str
    code: int = 2


def _are_refused(refusals: Sequence[Refusal]) -> None:
    """Each in one line."""
    ended = run_servers([("--port", "0", *refusal.arguments) for refusal in refusals])
    for refusal, found in zip(refusals, ended, strict=True):
        assert (found.returncode, found.stdout) == (refusal.code, ""), (refusal, found)
        assert found.stderr.count("\n") == 1, (refusal, found)
        assert found.stderr.startswith("llcuda-server: error: "), (refusal, found)
        assert refusal.words in found.stderr, (refusal, found)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("server", "--upstream", NOBODY, "--port", port)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith(
        f"llcuda-server: error: cannot listen on 127.0.0.1:{port}: Address already in use; choose "
    )


def test_what_is_refused(tmp_path: Path) -> None:
    demo = (resources.files("llcuda_net.data") / "demo.gguf").read_bytes()
    cut, empty, two = tmp_path / "cut.gguf", tmp_path / "empty", tmp_path / "two"
    cut.write_bytes(demo[: len(demo) // 2])
    empty.write_text("\n# a comment\n")
    two.write_text("a\r\nX-Injected: b")
    upstream = ("--upstream", NOBODY)
    tls = [(*upstream, "--tls-cert", name, "--tls-key", name) for name in ("/no", __file__)]
    open_to_all = (*upstream, "--host", "0.0.0.0")
    nowhere = [(host, (*upstream, "--allow-no-auth", "--host", host)) for host in NOWHERE]
    _are_refused(
        [
            Refusal(["--port", "x"], "--port must be a whole number"),
            Refusal(["--timeout", "-1"], "--timeout must be at least"),
            Refusal(["--config", "/no/such/file"], "cannot read /no/such/file"),
            Refusal(["--upstream", "http://host:port"], "is not a URL such as"),
            Refusal([*upstream, "--model", "x.gguf"], "not both"),
            Refusal([*upstream, "--auth-token-file", "/no"], "cannot read token file"),
            Refusal([*upstream, "--auth-token-file", str(empty)], "holds no token"),
            Refusal([*upstream, "--upstream-api-key-file", "/no"], "cannot read API key file"),
            Refusal([*upstream, "--upstream-api-key-file", str(two)], "must hold one line"),
            Refusal(tls[0], "cannot read cert"),
            Refusal(tls[1], "no certificate"),
            Refusal(open_to_all, "--auth-token-file FILE, or --allow-no-auth"),
            Refusal(["--model", "/no/such.gguf"], "/no/such.gguf does not exist"),
            Refusal(["--model", "/"], "is a directory"),
            Refusal(["--model", __file__], "is not a GGUF file"),
            Refusal(["--model", str(cut)], "cut.gguf"),
            *(Refusal(line, f"cannot listen on {host}:0", 1) for host, line in nowhere),
        ]
    )


def test_beyond_loopback_with_leave() -> None:
    options = ["--host", "0.0.0.0", "--allow-no-auth", "--upstream", NOBODY]
    with running_server(*options) as server, connected(server.port):
        assert server.address.startswith("0.0.0.0:")


# -- TLS and tokens ---------------------------------------------------------------------------


def test_tls_and_a_token(tmp_path: Path) -> None:
    ca = trustme.CA()
    cert = ca.issue_cert("localhost")
    cert_file, key_file, token_file = (str(tmp_path / n) for n in ("cert", "key", "tokens"))
    cert.cert_chain_pems[0].write_to_path(cert_file)
    cert.private_key_pem.write_to_path(key_file)
    Path(token_file).write_text("\ufeffsecond-sesame\n# clients\nfirst-sesame\n")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    with synthetic_upstream.running("--rate", "0") as url:
        options = ["--upstream", url, "--auth-token-file", token_file]
        with running_server(*options, "--tls-cert", cert_file, "--tls-key", key_file) as server:
            with connected(server.port, context, greet=False) as client:
                refusal = client.greet("third-sesame")
                assert isinstance(refusal, Error)
                assert refusal.code == ErrorCode.UNAUTHORIZED
            with connected(server.port, context, greet=False) as client:
                assert isinstance(client.greet("second-sesame"), Welcome)
                client.send(ask("hello", n_predict=300))
                pieces, done = client.until(Done)
                assert done.usage["completion_tokens"] == 300
                assert len("".join(pieces)) > 300
            with connected(server.port, greet=False) as plain:  # no TLS: nothing but an end
                plain.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    while plain.sock.recv(65_536):
                        pass
            with connected(server.port, context, greet=False) as client:
                assert isinstance(client.greet("first-sesame"), Welcome)
            assert server.stop() == 0
            assert "sesame" not in server.log()


# -- how it ends ------------------------------------------------------------------------------


def _engine_of(server: RunningServer) -> int:
    (engine,) = children(server.process.pid)
    return engine


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_idle_ends_it_and_its_engine(number: signal.Signals) -> None:
    with running_server() as server, connected(server.port) as client:
        engine = _engine_of(server)
        assert server.stop(number) == 0
        assert not _alive(engine)
        assert isinstance(client.next(), GoAway)
        assert "Traceback" not in server.log()


def test_after_kill_9_the_engine_is_gone_too() -> None:
    with running_server() as server:
        engine = _engine_of(server)
        server.process.kill()
        server.process.wait(PATIENCE)
        wait_until(lambda: not _alive(engine), "the engine has gone")


def test_a_signal_ends_a_server_without_an_upstream() -> None:
    with running_server("--upstream", NOBODY) as server:
        assert server.stop() == 0


def test_a_running_answer_is_finished_and_a_second_signal_ends_at_once() -> None:
    drain = ("--drain-seconds", str(PATIENCE))
    with held_upstream(10) as url:
        with running_server("--upstream", url, *drain) as server, connected(server.port) as client:
            client.send(ask("hello", n_predict=60))
            client.until(Tokens)
            server.process.send_signal(signal.SIGTERM)
            _, goaway = client.until(GoAway)
            assert goaway.grace == PATIENCE
            release(url)
            _, done = client.until(Done)
            assert (done.reason, done.usage["completion_tokens"]) == ("length", 60)
            assert server.process.wait(PATIENCE) == 0
        with running_server("--upstream", url, *drain) as server, connected(server.port) as client:
            client.send(ask("hello [[stall:3]]"))
            client.until(Tokens)
            server.process.send_signal(signal.SIGTERM)
            client.until(GoAway)
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(PATIENCE) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_what_does_not_end_is_handed_back() -> None:
    with synthetic_upstream.running("--rate", "200") as url:
        options = ["--upstream", url, "--drain-seconds", "0.2"]
        with running_server(*options) as server, connected(server.port) as client:
            client.send(ask("hello [[stall:3]]"))
            client.until(Tokens)
            server.process.send_signal(signal.SIGTERM)
            _, error = client.until(Error)
            assert (error.stream, error.code) == (1, ErrorCode.SHUTTING_DOWN)
            assert error.retry
            assert server.process.wait(PATIENCE) == 0


def test_an_engine_that_dies_is_replaced_and_its_answers_go_on() -> None:
    with running_server() as server, connected(server.port) as client:
        # The engine cannot be held: where it was done before it was killed, that is tried again.
        for attempt in itertools.count(1):
            request = ask(STORY, attempt, n_predict=1500, ignore_eos=True)
            client.send(replace(request, splices=True))
            client.until(Tokens)
            os.kill(_engine_of(server), signal.SIGKILL)
            splices = []
            while not isinstance(event := client.next(), Done):
                assert not isinstance(event, Error), event
                splices += [event.position] if isinstance(event, Splice) else []
            assert event.splices == splices
            assert (event.reason, event.usage["completion_tokens"]) == ("length", 1500)
            if splices:
                break
            assert attempt < 20
            wait_until(lambda: bool(children(server.process.pid)), "the next engine is there")
        client.send(ask(STORY, attempt + 1, n_predict=3))
        client.until(Done)
        client.send(Status(attempt + 2))
        _, report = client.until(Report)
        assert report.report["upstreams"][0]["restarts"] == attempt
        assert report.report["requests"]["running"] == 0
        assert server.stop() == 0


# -- with the real engine ---------------------------------------------------------------------


def test_a_prompt_longer_than_the_context(demo_server: RunningServer) -> None:
    with connected(demo_server.port) as client:
        client.send(ask("word " * 20_000))
        _, error = client.until(Error)
        assert (error.code, error.retry) == (ErrorCode.CONTEXT_EXCEEDED, False)
        client.send(ask(STORY, 3, n_predict=4))
        client.until(Done)


def test_invalid_utf8_ends_its_stream_and_nothing_else(demo_server: RunningServer) -> None:
    with connected(demo_server.port) as bad, connected(demo_server.port) as good:
        frame = bad.connection.send(ask("MARKER")).replace(b"MARKER", b"MARK\xff\xfe")
        bad.sock.sendall(frame)
        _, error = bad.until(Error)
        assert (error.stream, error.code) == (1, ErrorCode.INVALID_REQUEST)
        good.send(ask(STORY, n_predict=4))
        good.until(Done)


def test_cancelled_and_dropped_answers_free_their_slots(demo_server: RunningServer) -> None:
    with connected(demo_server.port) as watcher:
        number = 0

        def idle() -> bool:
            nonlocal number
            number += 1
            watcher.send(Status(number))
            _, report = watcher.until(Report)
            requests = report.report["requests"]
            return bool(requests["running"] == requests["queued"] == 0)

        for _ in range(3):  # more than there are slots, half of them waiting
            with connected(demo_server.port) as client:
                requests = [ask(STORY, n, n_predict=2000, ignore_eos=True) for n in range(1, 9)]
                client.send(*(replace(request, on_disconnect=0.0) for request in requests))
                client.until(Tokens)
            wait_until(idle, "the slots of a lost client are free")
        with connected(demo_server.port) as client:  # the engine itself has room again
            client.send(*(ask(STORY, n, n_predict=5) for n in range(1, 5)))
            for _ in range(4):
                client.until(Done)


# -- logs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [False, True])
def test_no_prompt_in_the_logs_unless_asked_for(shown: bool) -> None:
    options = ["--log-level", "debug", *(["--log-prompts"] if shown else [])]
    with (
        synthetic_upstream.running("--rate", "0") as url,
        running_server("--upstream", url, *options) as server,
    ):
        with connected(server.port) as client:
            client.send(ask("a xyzzy prompt", n_predict=3))
            client.until(Done)
            client.send(ask("xyzzy [[http:500]]", 3, n_predict=3))
            client.until(Error)
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("generation_started") == 2
    assert events.count("generation_ended") == 2
    assert all({"level", "timestamp", "event"} <= set(line) for line in lines)
    assert ("xyzzy" in json.dumps(lines)) is shown


def test_nobody_has_to_read_the_log() -> None:
    read, write = os.pipe()
    os.close(read)
    with synthetic_upstream.running("--rate", "0") as url:
        process = _start_with_stderr(write, "--upstream", url, "--log-level", "debug")
        os.close(write)
        with process:
            try:
                port = int(read_line(process).rpartition(":")[2])
                with connected(port) as client:
                    client.send(ask("hello", n_predict=3))
                    client.until(Done)
                process.terminate()
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()


def _start_with_stderr(descriptor: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("server", "--port", "0", *arguments),
        stdout=subprocess.PIPE,
        stderr=descriptor,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )


# -- crowds, and others -----------------------------------------------------------------------


@pytest.mark.parametrize("crowd", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_silent_connections_do_not_keep_others_out(crowd: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 20_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, 20_000)), hard))
    crowd = min(crowd, most - 500)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        url = stack.enter_context(synthetic_upstream.running("--rate", "0"))
        server = stack.enter_context(running_server("--upstream", url))
        early = stack.enter_context(connected(server.port))
        for count in range(crowd):
            sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            stack.enter_context(sock)
            if count % 1000 == 500:
                _is_served(server.port)
        early.send(ask("hello", n_predict=3))
        early.until(Done)
        _is_served(server.port)
        # It holds the handshake's cap of them and not the whole crowd.
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 1000
        assert "Traceback" not in server.log()
        assert server.stop() == 0


def _is_served(port: int) -> None:
    with connected(port) as client:
        client.send(ask("hello", n_predict=3))
        client.until(Done)


def test_two_servers_do_not_disturb_each_other(demo_server: RunningServer) -> None:
    with running_server() as other:
        assert other.port != demo_server.port
        with connected(demo_server.port) as one, connected(other.port) as two:
            one.send(ask(STORY, n_predict=20))
            two.send(ask(STORY, n_predict=20))
            assert one.until(Done)[0]
            assert two.until(Done)[0]
            two.send(ask(STORY, 3, n_predict=2000, ignore_eos=True))
            two.until(Tokens)
            other.process.kill()
            one.send(ask(STORY, 3, n_predict=20))
            one.until(Done)


def test_an_upstream_that_comes_later() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # taken, and nobody listens
        port = place.getsockname()[1]
        upstream = f"http://127.0.0.1:{port}"
        options = ["--upstream", upstream, "--failover-seconds", "0"]
        with running_server(*options) as server, connected(server.port) as client:
            client.send(ask("hello"))
            _, error = client.until(Error)
            assert (error.code, error.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
            place.close()
            with synthetic_upstream.running("--port", str(port), "--rate", "0"):
                number = 1

                def served() -> bool:
                    nonlocal number
                    number += 1
                    client.send(ask("hello", number, n_predict=3))
                    while not isinstance(event := client.next(), Done | Error):
                        pass
                    return isinstance(event, Done)

                wait_until(served, "the upstream serves")
            client.send(ask("hello", number + 1))  # and has gone again
            _, error = client.until(Error)
            assert error.code == ErrorCode.UPSTREAM_UNAVAILABLE
