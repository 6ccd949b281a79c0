"""Several upstreams behind a real server: one is killed, and the files are read again on SIGHUP."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from llcuda_protocol import Accepted, Done, Error, Generate, Report, Splice, Status, Tokens, Welcome
from tests.support.processes import RunningServer, running_server, wait_until
from tests.support.raw_client import CREDIT, RawClient, connected
from tests.support.steady import held_upstream, release
from tools.synthetic.tokens import generation

#: Tokens of each answer that come before it is released.
HELD = 40


def upstream() -> AbstractContextManager[str]:
    return held_upstream(HELD, "--slots", "2")


def report(server: RunningServer, token: str | None = None) -> dict[str, Any]:
    with connected(server.port, greet=False) as client:
        assert isinstance(client.greet(token), Welcome)
        client.send(Status(1))
        found = client.next()
        assert isinstance(found, Report)
        return found.report


def upstreams(server: RunningServer, token: str | None = None) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in report(server, token)["upstreams"]}


def generate(client: RawClient, prompt: str, tokens: int, stream: int = 1, **more: Any) -> None:
    params = {"temperature": 0, "n_predict": tokens}
    client.send(Generate(stream, CREDIT, prompt=prompt, params=params, splices=True, **more))
    while not isinstance(event := client.next(), Accepted):
        assert not isinstance(event, Error), event


def rest(client: RawClient) -> tuple[str, list[int], Done]:
    """The text, where it was spliced, and its end."""
    pieces: list[str] = []
    splices: list[int] = []
    while True:
        event = client.next()
        if isinstance(event, Tokens):
            assert event.first == len(pieces)
            pieces += event.pieces
        elif isinstance(event, Splice):
            assert event.position == len(pieces)
            splices.append(event.position)
        elif isinstance(event, Done):
            return "".join(pieces), splices, event
        else:
            assert not isinstance(event, Error), event


def test_one_of_three_is_killed_and_no_answer_shows_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        dying = stack.enter_context(ExitStack())
        urls = [(dying if n == 0 else stack).enter_context(upstream()) for n in range(3)]
        arguments = [word for url in urls for word in ("--upstream", url)]
        server = stack.enter_context(running_server(*arguments, LLCUDA_DATA_DIR=str(tmp_path)))
        wait_until(
            lambda: all(m["upstreams"] == urls for m in report(server)["models"]),
            "all three are one model",
        )
        found: dict[int, tuple[str, list[int], Done]] = {}

        def ask(number: int) -> None:
            with connected(server.port) as client:
                generate(client, f"prompt {number}", 200)
                found[number] = rest(client)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        wait_until(lambda: report(server)["tokens"] >= 6 * HELD, "all run, and are held")
        on_it = upstreams(server)[urls[0]]["busy"]
        assert on_it == 2
        dying.close()
        for url in urls[1:]:
            release(url)
        for thread in threads:
            thread.join()
        for number in range(6):
            text, splices, done = found[number]
            assert text == generation(f"prompt {number}", 200)
            assert done.reason == "length"
            assert splices == done.splices
        assert sum(bool(splices) for _, splices, _ in found.values()) == on_it
        told = report(server)
        assert told["requests"]["failovers"] >= on_it
        assert upstreams(server)[urls[0]]["state"] in ("down", "probing")
        assert server.stop() == 0
        assert "Traceback" not in server.log()


def config(path: Path, *tables: dict[str, Any]) -> None:
    lines: list[str] = []
    for table in tables:
        lines.append("[[upstream]]")
        lines += [f"{key} = {value!r}" for key, value in table.items()]
    path.write_text("\n".join(lines))


def hang_up(server: RunningServer, word: str = '"reloaded"') -> None:
    before = server.log().count(word)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log().count(word) > before, word)


def test_a_reload_that_hangs_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    with upstream() as url:
        config(file, {"name": "a", "url": url, "model": "m"})
        with running_server("--config", str(file)) as server:
            file.unlink()
            os.mkfifo(file)  # which nobody writes to
            server.process.send_signal(signal.SIGHUP)
            with connected(server.port) as client:
                generate(client, "short", 5)
                assert rest(client)[0] == generation("short", 5)
            assert server.stop() == 0


def test_upstreams_come_and_go_by_sighup(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    with upstream() as one, upstream() as two:
        a = {"name": "a", "url": one, "model": "m"}
        b = {"name": "b", "url": two, "model": "m"}
        config(file, a)
        with running_server("--config", str(file)) as server, connected(server.port) as client:
            generate(client, "a long one", 150)
            assert list(upstreams(server)) == ["a"]
            # One more takes its part.
            config(file, {**a, "weight": 2.5}, b)
            hang_up(server)
            wait_until(lambda: upstreams(server)["b"]["state"] == "up", "b is up")
            assert upstreams(server)["a"]["weight"] == 2.5
            assert upstreams(server)["a"]["busy"] == 1
            # The first one is drained, and what runs there comes to its end.
            config(file, b)
            hang_up(server)
            assert upstreams(server)["a"]["state"] == "draining"
            with connected(server.port) as other:
                generate(other, "short", 5)
                assert rest(other)[0] == generation("short", 5)
            assert upstreams(server)["a"]["state"] == "draining"
            release(one)
            text, splices, _ = rest(client)
            assert (text, splices) == (generation("a long one", 150), [])
            wait_until(lambda: list(upstreams(server)) == ["b"], "a has left")
            # A bad file changes nothing, and says so in a line.
            for bad in ("[[upstream]]\nname = 'x'", "upstream = 7", "not toml", ""):
                file.write_text(bad)
                before = len(server.log().splitlines())
                hang_up(server, "not_reloaded")
                wait_until(lambda n=before: len(server.log().splitlines()) > n, "a line")  # type: ignore[misc]
                assert list(upstreams(server)) == ["b"]
                (line,) = [line for line in server.log().splitlines()[before:] if "reload" in line]
                assert '"reason"' in line
            assert server.stop() == 0
            assert "Traceback" not in server.log()


def test_users_come_and_go_by_sighup(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one name=ann\ntwo name=bob\nboss name=root role=admin\n")
    with upstream() as url:
        arguments = ("--upstream", url, "--auth-token-file", str(tokens))
        with running_server(*arguments) as server:
            with (
                connected(server.port, greet=False) as client,
                connected(server.port, greet=False) as lost,
            ):
                assert isinstance(client.greet("one"), Welcome)
                assert isinstance(lost.greet("two"), Welcome)
                generate(client, "hello", 20)
                rest(client)
                tokens.write_text(
                    "one name=ann weight=4\nthree name=eve\nboss name=root role=admin\n"
                )
                hang_up(server)
                # Whose token is not there any more is let out, too.
                error = lost.next()
                assert isinstance(error, Error)
                assert error.code == "unauthorized"
                generate(client, "hello", 20, stream=3)
                rest(client)
                weights = {u["name"]: u["weight"] for u in report(server, "boss")["users"]}
                assert weights["ann"] == 4
            for token, fine in (("two", False), ("three", True)):
                with connected(server.port, greet=False) as client:
                    assert isinstance(client.greet(token), Welcome) is fine
            tokens.write_text("four name=dan\nfive weight=none\n")
            hang_up(server, "not_reloaded")
            assert "line 2" in server.log()
            assert "five" not in server.log()
            for token, fine in (("four", False), ("three", True)):
                with connected(server.port, greet=False) as client:
                    assert isinstance(client.greet(token), Welcome) is fine
            assert server.stop() == 0
