"""The client and a server that is killed under it: real processes, no token missing or doubled."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llcuda_net import sync
from llcuda_net.errors import RequestError
from tests.support.processes import (
    PATIENCE,
    RunningServer,
    command,
    environment,
    run,
    running_server,
)
from tests.support.steady import held_upstream, release
from tools import synthetic_upstream
from tools.synthetic.tokens import generation

PROMPT = "tell me a story"
TOKENS = 400
#: Tokens of an answer, or of its continuation, that come before it is released: 300 characters.
HELD = 50


def _again(stack: ExitStack, server: RunningServer, *arguments: str) -> RunningServer:
    """The next server at the same address."""
    return stack.enter_context(running_server(*arguments, "--port", str(server.port)))


def test_llcuda_client_reads_on_after_kill_9(tmp_path: Path) -> None:
    with held_upstream(HELD) as upstream, ExitStack() as stack:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        server = stack.enter_context(running_server(*arguments))
        patient = ("--reconnect-seconds", str(PATIENCE), "--server", server.address)
        with subprocess.Popen(
            command("client", PROMPT, "--raw", "-n", str(TOKENS), *patient),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as client:
            assert client.stdout is not None
            assert client.stderr is not None
            out = client.stdout.read(200)
            for _ in range(2):
                server.stop(signal.SIGKILL)
                server = _again(stack, server, *arguments)
                # More than the server before has said, so that the client has come back.
                out += client.stdout.read(250)
            release(upstream)
            out += client.stdout.read()
            err = client.stderr.read()
    assert client.returncode == 0, err
    assert out == generation(PROMPT, TOKENS) + "\n"
    notes = err.splitlines()
    lost = [line for line in notes if line.startswith("llcuda-client: connection lost after ")]
    resumed = [line for line in notes if line.startswith("llcuda-client: resumed at token ")]
    assert (len(lost), len(resumed)) == (2, 2), err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_many_streams_go_on_over_one_new_connection(tmp_path: Path, number: int) -> None:
    """Also when the server is stopped in all manners, and has no time for the streams to end."""
    with held_upstream(HELD, "--slots", "8") as upstream, ExitStack() as st:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path), "--drain-seconds", "0.2")
        server = st.enter_context(running_server(*arguments))
        notes: list[str] = []
        begun = threading.Barrier(9)
        found: dict[str, sync.Result] = {}
        options: dict[str, Any] = {"timeout": PATIENCE, "reconnect": PATIENCE}
        with sync.connect(server.address, on_note=notes.append, **options) as client:

            def ask(prompt: str) -> None:
                with client.generate(raw=prompt, n_predict=TOKENS) as stream:
                    pieces = iter(stream)
                    for _ in range(30):
                        next(pieces)
                    begun.wait(PATIENCE)
                    for _ in pieces:
                        pass
                    found[prompt] = stream.result

            threads = [threading.Thread(target=ask, args=(f"{PROMPT} {i}",)) for i in range(8)]
            for thread in threads:
                thread.start()
            begun.wait(PATIENCE)
            server.stop(number)
            server = _again(st, server, *arguments)
            release(upstream)
            for thread in threads:
                thread.join(PATIENCE)
            assert client.status()["connections"] == 1
        assert {p: r.text for p, r in found.items()} == {
            f"{PROMPT} {i}": generation(f"{PROMPT} {i}", TOKENS) for i in range(8)
        }
        assert all(result.splices for result in found.values())
        assert notes[-1] == "resumed: 8 requests go on"


def test_detach_kill_attach_and_cancel(tmp_path: Path) -> None:
    with held_upstream(HELD) as upstream, ExitStack() as stack:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        server = stack.enter_context(running_server(*arguments))
        where = ("--server", server.address)
        detached = run("client", PROMPT, "--raw", "-n", str(TOKENS), "--detach", *where)
        assert (detached.returncode, detached.stderr) == (0, "")
        name = detached.stdout.strip()
        server.stop(signal.SIGKILL)
        server = _again(stack, server, *arguments)
        release(upstream)
        # Live, then finished, then from its middle.
        for _ in range(2):
            attached = run("client", "--attach", name, *where)
            assert attached.returncode == 0, attached.stderr
            assert attached.stdout == generation(PROMPT, TOKENS) + "\n"
        attached = run("client", "--attach", name, "--from", "390", "--json", *where)
        events = [json.loads(line) for line in attached.stdout.splitlines()]
        pieces = [event for event in events if event["event"] == "piece"]
        assert [piece["sequence"] for piece in pieces] == list(range(390, 400))
        assert generation(PROMPT, TOKENS).endswith("".join(piece["text"] for piece in pieces))
        assert (events[0]["level"], events[-1]["reason"]) == ("disk", "length")
        over = run("client", "--cancel", name, *where)
        assert (over.returncode, over.stdout) == (0, "was over already: length\n")

        release(upstream, False)
        name = run("client", "-n", "4000", "--raw", "x", "--detach", *where).stdout.strip()
        assert run("client", "--cancel", name, *where).stdout == "cancelled\n"
        unknown = run("client", "--cancel", "no-such-id", *where)
        assert unknown.returncode == 1
        assert "unknown_generation" in unknown.stderr


def test_keys_and_the_cache(tmp_path: Path) -> None:
    request: dict[str, Any] = {"raw": PROMPT, "n_predict": 20, "temperature": 0}
    with (
        synthetic_upstream.running("--rate", "0") as upstream,
        running_server("--upstream", upstream, "--data-dir", str(tmp_path)) as server,
        sync.connect(server.address) as client,
    ):
        first = client.complete(**request, key="mine")
        again = client.complete(**request, key="mine")
        assert (again.id, again.text, again.cached) == (first.id, first.text, False)
        with pytest.raises(RequestError) as caught:
            client.complete(raw="another", key="mine")
        assert caught.value.code == "key_conflict"
        stored = client.complete(**request, cache=True)
        assert (stored.text, stored.cached) == (first.text, True)
        assert stored.id != first.id
        assert not client.complete(**request).cached


def test_a_generation_of_level_memory_is_lost_with_its_server(tmp_path: Path) -> None:
    with held_upstream(HELD) as upstream, ExitStack() as stack:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        server = stack.enter_context(running_server(*arguments))
        with (
            sync.connect(server.address, timeout=PATIENCE, reconnect=PATIENCE) as client,
            client.generate(raw=PROMPT, n_predict=TOKENS, level="memory") as stream,
        ):
            assert stream.level == "memory"
            pieces = iter(stream)
            next(pieces)
            server.stop(signal.SIGKILL)
            _again(stack, server, *arguments)
            with pytest.raises(RequestError, match="was lost with the server") as caught:
                list(pieces)
            assert caught.value.code == "unknown_generation"
            assert generation(PROMPT, TOKENS).startswith(stream.text)
