"""Conversations that the server has, over kill -9: real processes, both clients."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import llcuda_net
from llcuda_net import sync
from tests.support.processes import RunningServer, run, running_server
from tests.support.steady import held_upstream, release

#: Tokens of an answer that come before it is released.
HELD = 20
TOKENS = 60


def _shown(folder: Path, id_: str) -> dict[str, Any]:
    shown = run("main", "results", "show", id_, "--json", "--data-dir", str(folder))
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def _said(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in document["request"]["messages"]]


def _again(stack: ExitStack, server: RunningServer, *arguments: str) -> RunningServer:
    """Kill the server; the next one at the same address."""
    server.stop(signal.SIGKILL)
    return stack.enter_context(running_server(*arguments, "--port", str(server.port)))


def test_a_conversation_goes_on_over_kill_9(tmp_path: Path) -> None:
    """With the demonstration model: from Python, without async, and from a shell."""
    arguments = ("--data-dir", str(tmp_path))
    with ExitStack() as stack:
        server = stack.enter_context(running_server(*arguments))
        with sync.connect(server.address) as client:
            first = client.complete("What is a slot?", system="Be brief.", n_predict=40)
        assert first.id is not None
        server = _again(stack, server, *arguments)
        where = ("--server", server.address)
        second = run("client", "And a stream?", "--continue", "last", "-n", "40", *where)
        assert second.returncode == 0, second.stderr
        assert f"goes on with {first.id}: What is a slot?" in second.stderr
        with sync.connect(server.address) as client:
            newest = client.list(1)[0].id
            third = client.complete("Go on.", previous=f"chatcmpl-{newest}", n_predict=20)
            client.delete(first.id)
            try:
                client.complete("a", previous=first.id)
            except llcuda_net.UnknownGeneration:
                pass
            else:
                raise AssertionError("it is deleted")
        assert third.id is not None
        last = _shown(tmp_path, third.id)
        assert last["request"]["previous"] == newest
        assert _shown(tmp_path, newest)["request"]["previous"] == first.id
        assert _said(last) == [
            ("system", "Be brief."),
            ("user", "What is a slot?"),
            ("assistant", first.text),
            ("user", "And a stream?"),
            ("assistant", _shown(tmp_path, newest)["text"]),
            ("user", "Go on."),
        ]


def test_one_in_the_background_goes_on_over_kill_9(tmp_path: Path) -> None:
    """Though the answer that it goes on with is deleted; and it is gone on with from a chat."""
    with held_upstream(HELD) as upstream, ExitStack() as stack:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        server = stack.enter_context(running_server(*arguments))
        where = ("--server", server.address)
        limit = ("-n", str(TOKENS))
        release(upstream)
        assert run("client", "a question", *limit, *where).returncode == 0
        with sync.connect(server.address) as client:
            first = client.list(1)[0].id
        release(upstream, False)
        begun = run("client", "more", *limit, "--background", "--continue", first, *where)
        assert (begun.returncode, begun.stderr) == (0, "")
        second = begun.stdout.strip()
        early = run("client", "a", "--continue", second, *where)
        assert early.returncode == 1
        assert "still runs" in early.stderr
        assert run("client", "--delete", first, *where).returncode == 0
        server = _again(stack, server, *arguments)
        release(upstream)
        attached = run("client", "--attach", second, *where)
        assert attached.returncode == 0, attached.stderr
        assert attached.stdout.startswith(_shown(tmp_path, second)["text"])
        words = ("--chat", "--continue", second, "and?", *limit, *where)
        chat = run("client", *words, input="why?\n")
        assert chat.returncode == 0, chat.stderr
        with sync.connect(server.address) as client:
            last, third = (entry.id for entry in client.list(2))
        found = _said(_shown(tmp_path, last))
        assert [role for role, _ in found] == ["user", "assistant"] * 3 + ["user"]
        assert found[0] == ("user", "a question")
        assert found[3] == ("assistant", _shown(tmp_path, second)["text"])
        assert found[4:] == [
            ("user", "and?"),
            ("assistant", _shown(tmp_path, third)["text"]),
            ("user", "why?"),
        ]
