"""Every command, with escape sequences in every text that it is given: none reaches the terminal.

Server, upstream, store and command line say what would command a terminal wherever they may say
anything. TERM is "dumb", so that no command has reason to write any control character of its own.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

import llcuda_protocol as wire
from llcuda_net.cli import main as tools
from llcuda_net.cli import server as server_command
from llcuda_net.cli.batch import mpi
from llcuda_net.cli.client import command as client
from llcuda_net.cli.common import Exit
from llcuda_net.storage.records import TokenLog, packed
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.util import logs
from tests.support.cli.fake_terminal import EVIL, FakeTerminal, is_obeyed
from tests.support.cli.terminal import Terminal
from tests.support.client.scripted_server import Peer, listening
from tests.support.reports import FULL
from tests.support.storage.records import result

Main = Callable[[list[str]], int]
#: What a screen shows of EVIL, however much of it there is room for.
SHOWN = "\\x1b]0;"


def evil(value: Any) -> Any:
    """The value with every text in it made evil."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, dict):
        return {key: evil(inner) for key, inner in value.items()}
    return [evil(inner) for inner in value] if isinstance(value, list) else value


class EvilServer:
    """It answers by what it is asked, all of it evil; a prompt with "fail" in it is refused."""

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        peer = Peer(stream, features=["attach", "pool", "splice", "list", "search", "store"])
        async with stream:
            with suppress(
                trio.BrokenResourceError, trio.ClosedResourceError, wire.RemoteProtocolError
            ):
                await peer.greet()
                while not isinstance(event := await peer.receive(), wire.ConnectionClosed):
                    await peer.send(*self._answer(event))

    def _answer(self, event: wire.Event) -> list[wire.Frame]:
        n = getattr(event, "stream", 0)
        if isinstance(event, wire.Generate) and "fail" in str(event.prompt or event.messages):
            return [wire.Error(n, f"made{EVIL}up", f"no model{EVIL}")]
        if isinstance(event, wire.Generate):
            logprob = wire.TokenLogprob(1, EVIL.encode(), -9.0)
            return [
                wire.Accepted(n, f"id{EVIL}", 2, reason=f"all slots{EVIL}"),
                wire.Queue(n, 1, 3.0, f"all slots{EVIL}"),
                wire.Queue(n, 0),
                wire.Tokens(n, 0, ["a\x1b"], [1], [[logprob]]),
                wire.Splice(n, 1, f"upstream{EVIL} failed"),
                wire.Tokens(n, 1, [f"]0;x\x07 {EVIL}"], [2], [[logprob]]),
                wire.Done(
                    n,
                    "stop",
                    id=f"id{EVIL}",
                    model=f"model{EVIL}",
                    usage={"prompt_tokens": 3, "completion_tokens": 2},
                    timings={f"queue{EVIL}": 1.0, "total": 2.0},
                ),
            ]
        if isinstance(event, wire.Status):
            models = [{"name": "m", "upstreams": ["u"], "slots": 1, "default": True}]
            return [wire.Report(n, evil({**FULL, "models": models}))]
        if isinstance(event, wire.ListGenerations):
            entry = {"id": "g", "state": "running", "model": "m", "owner": "o", "preview": "p"}
            return [wire.Listing(n, [{**evil(entry), "created": 1.0}]), wire.Done(n, "complete")]
        if isinstance(event, wire.Search):
            hit = evil({"id": "g", "state": "done", "model": "m", "preview": "p", "text": "t"})
            return [
                wire.Hits(n, [{**hit, "score": 0.5, "created": 1.0}]),
                wire.Done(n, "complete"),
            ]
        if isinstance(event, wire.Ping):
            return [wire.Pong(event.payload)]
        return [wire.Error(n, "not_found", f"nothing{EVIL}")] if n else []


@pytest.fixture
def address() -> Iterator[str]:
    with listening(EvilServer().serve) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory whose only result is evil."""
    store = SqliteStore(tmp_path, write=True)
    text = f"slot a{EVIL}"
    one = result(1, request={"prompt": text, f"x{EVIL}": EVIL, "params": {f"p{EVIL}": EVIL}})
    one.log = TokenLog(
        [text, EVIL], [1, 2], [packed([[1, b"\x1b", -9.0, []]]), packed([[2, b"\x9b", -9.0, []]])]
    )
    for name in ("upstream", "owner", "key", "stop", "reason"):
        setattr(one, name, f"{name}{EVIL}")
    one.model = {"name": f"model{EVIL}", f"x{EVIL}": EVIL}
    one.error = {"code": f"code{EVIL}", "message": EVIL}
    one.timings = {f"queue{EVIL}": 1.0}
    one.usage = {f"tokens{EVIL}": 1}
    store.put([one])
    store.close()
    return tmp_path


class Screen:
    """Runs commands, with both streams on one terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, main: Main, *arguments: str, typed: str = "") -> str:
        """What is on the screen after a command; fails if it shows what a terminal obeys."""
        terminal = FakeTerminal()
        with self._monkeypatch.context() as patch:
            patch.setenv("TERM", "dumb")
            patch.setattr("sys.stdout", terminal)
            patch.setattr("sys.stderr", terminal)
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
            with suppress(SystemExit):
                main(list(arguments))
            shown = terminal.text
        assert shown
        assert [line for line in shown.splitlines() if any(map(is_obeyed, line))] == []
        return shown


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hello"], "]0;x\\x07 "),
        (["hello", "--stats"], "]0;x\\x07 "),
        (["hello", "--json"], "\\u001b]0;pwned"),
        (["hello", "--certainty", "--n-probs", "1"], SHOWN),
        (["fail"], f"no model{SHOWN}"),
        (["fail", "--json"], "no model\\u001b"),
        (["--models"], f"m{SHOWN}"),
        (["--list"], f"g{SHOWN}"),
        (["--cancel", "x"], f"nothing{SHOWN}"),
        (["--attach", "x"], f"nothing{SHOWN}"),
        (["hello", "--detach"], f"id{SHOWN}"),
        (["--chat"], f"there is no command /{SHOWN}"),
        ([f"--{EVIL}"], SHOWN),
        (["--temperature", EVIL], SHOWN),
        (["--stop", "\udc80", "x"], "UTF-8"),
        (["hello", "--token-file", EVIL], SHOWN),
        (["--file", EVIL], SHOWN),
        (["--param", EVIL, "x"], SHOWN),
    ],
    ids=lambda value: (
        " ".join(value).encode("ascii", "ignore").decode().split("\x1b")[0][:20]
        if isinstance(value, list)
        else ""
    ),
)
def test_the_client(words: list[str], says: str, address: str, screen: Screen) -> None:
    typed = f"hello\n/{EVIL}\nfail\n"
    assert says in screen(client.main, "--server", address, *words, typed=typed)


def test_a_server_name_that_is_evil(screen: Screen) -> None:
    for name in (EVIL, f"{EVIL}:9", f"127.0.0.1:{EVIL}"):
        screen(client.main, "--server", name, "hello")
        screen(tools.main, "top", "--once", "--server", name)


def test_top(address: str, screen: Screen) -> None:
    assert SHOWN in screen(tools.main, "top", "--once", address)
    assert "\\u001b" in screen(tools.main, "top", "--json", address)


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--json"],
        ["list", "--model", EVIL],
        ["show", "result-000001"],
        ["show", "result-000001", "--tokens"],
        ["show", "result-000001", "--text"],
        ["show", "result-000001", "--json"],
        ["show", EVIL],
        ["search", "slot"],
        ["search", EVIL],
        ["export"],
        ["export", "--format", "csv"],
        ["export", "-o", f"/nowhere/{EVIL}"],
        ["export", "--format", EVIL],
        ["verify"],
        ["stats"],
        ["prune", "--older-than", EVIL],
        [EVIL],
    ],
    ids=lambda words: " ".join(words).partition("\x1b")[0],
)
def test_results(words: list[str], directory: Path, screen: Screen) -> None:
    screen(tools.main, "results", *words, "--data-dir", str(directory))


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["text", "json"])
def test_a_search_by_meaning(
    words: list[str], address: str, directory: Path, screen: Screen
) -> None:
    where = ("--data-dir", str(directory), "--server", address)
    found = screen(tools.main, "results", "search", "--semantic", "x", *words, *where)
    assert "pwned" in found


def test_the_live_screen_and_a_line_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    from llcuda_net.cli.progress import StatusLine
    from llcuda_net.cli.top.app import Top
    from llcuda_net.cli.top.grid import Span

    class Silent:
        def run(self, listener: object) -> None:
            """No report comes."""

    top = Top("box", Silent(), coloured=False)  # type: ignore[arg-type]  # it is not run
    assert SHOWN in top._text([[Span(f"x{EVIL}", "")]]).plain
    monkeypatch.setenv("TERM", "xterm")
    terminal = FakeTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with StatusLine() as line:
        line.show(f"x{EVIL}")
    assert SHOWN in terminal.text
    assert "\x1b]0;" not in terminal.text
    assert "\x9b" not in terminal.text


def test_paths_that_are_evil(
    tmp_path: Path, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / EVIL).write_bytes(b"\xff")
    for words in (
        ["results", "list", "--data-dir", EVIL],
        ["results", "list", "--data-dir", f"{EVIL}x"],
        ["batch", f"{EVIL}x", "-o", "out"],
        ["batch", EVIL, "-o", f"/nowhere/{EVIL}"],
        ["infer", "--model", EVIL, "x"],
        ["infer", "--upstream", EVIL, "x"],
        ["bench", "latency", "--compare", EVIL],
        ["doctor", "--seed", EVIL],
        [EVIL],
    ):
        assert SHOWN in screen(tools.main, *words), words
    for words in (
        ["--config", EVIL],
        ["--config", f"{EVIL}x"],
        ["--port", EVIL],
        ["--auth-token-file", EVIL],
    ):
        assert SHOWN in screen(server_command.main, *words, "--store", "none"), words
    assert SHOWN in screen(mpi.main, "--input", EVIL, "--output", "out", f"--{EVIL}")


class EvilUpstream(BaseHTTPRequestHandler):
    """A llama-server that says what would command a terminal; after `refusal` was set, no more."""

    refusal: tuple[int, bytes] | None = None

    def do_GET(self) -> None:
        """Its properties."""
        default = {"n_ctx": 64, "params": {}}
        self._answer(
            {
                "default_generation_settings": default,
                "total_slots": 1,
                "model_alias": f"m{EVIL}",
                "model_path": f"/{EVIL}",
                "build_info": EVIL,
            }
        )

    def do_POST(self) -> None:
        """A prompt, or the answer to one."""
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/apply-template":
            self._answer({"prompt": f"p{EVIL}"})
        elif self.refusal is not None:
            self._send(*self.refusal, "application/json")
        else:
            first = {"content": f"a{EVIL}", "tokens": [1], "stop": False}
            last: dict[str, Any] = {"content": "", "tokens": [], "stop": True, "stop_type": "eos"}
            last |= {"model": f"m{EVIL}", "tokens_predicted": 1, "tokens_evaluated": 1}
            events = "".join(f"data: {json.dumps(event)}\n\n" for event in (first, last))
            self._send(200, events.encode(), "text/event-stream")

    def _answer(self, body: dict[str, Any]) -> None:
        self._send(200, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(EvilUpstream, "refusal", None)
    with ThreadingHTTPServer(("127.0.0.1", 0), EvilUpstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_upstream_that_is_evil(
    tmp_path: Path, screen: Screen, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": EVIL, "id": EVIL}) + "\n")
    batch = ["batch", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out")]
    asked = ("--upstream", upstream)
    for words in (["infer", "--stats", "hello"], ["infer", "--raw", "hello"]):
        assert f"a{SHOWN}" in screen(tools.main, *words, *asked)
    assert json.loads(screen(tools.main, "infer", "--json", "hello", *asked))["text"] == f"a{EVIL}"
    for refusal in (json.dumps({"error": {"message": f"bad{EVIL}"}}).encode(), EVIL.encode()):
        monkeypatch.setattr(EvilUpstream, "refusal", (400, refusal))
        screen(tools.main, "infer", "hello", *asked)
        screen(tools.main, *batch, *asked)


def test_a_bug_that_says_something_evil(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise AssertionError(EVIL)

    monkeypatch.setattr("llcuda_net.cli.doctor.machine", broken)
    shown = screen(tools.main, "doctor")
    assert "Traceback" in shown
    assert SHOWN in shown


@pytest.mark.parametrize("style", ["human", "json"])
def test_the_log(style: str, screen: Screen) -> None:
    def talk(arguments: list[str]) -> int:
        logs.configure("debug", style)
        log = structlog.get_logger("x")
        log.info(
            f"event{EVIL}", text=EVIL, number=1, nested=[EVIL, {EVIL: EVIL}], error=OSError(EVIL)
        )
        try:
            raise RuntimeError(EVIL)
        except RuntimeError:
            log.exception("crashed")
        logging.getLogger("library").warning("says %s", EVIL)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn(f"beware {EVIL}", stacklevel=1)
            logging.captureWarnings(False)
        return 0

    logging.captureWarnings(False)
    shown = screen(talk)
    assert shown.count("pwned") >= 7
    if style == "json":
        assert json.loads(shown.splitlines()[0])["text"] == EVIL


def test_a_real_process_on_a_real_terminal(address: str) -> None:
    terminal = Terminal("fail", "--server", address, TERM="dumb")
    shown = terminal.until("up)")
    assert terminal.end() == Exit.REFUSED
    assert f"no model{SHOWN}" in shown
    assert not any(map(is_obeyed, shown.replace("\r\n", "")))


def test_the_screen_finds_what_is_evil(screen: Screen) -> None:
    def careless(arguments: list[str]) -> int:
        sys.stdout.write(f"model {EVIL}\n")
        return 0

    with pytest.raises(AssertionError):
        screen(careless)
