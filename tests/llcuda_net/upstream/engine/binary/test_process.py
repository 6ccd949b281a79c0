"""A llama-server as our child: the stand-in always, and a real one where there is one.

Nothing waits for a length of time; a process that should end is waited for until it has ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from llcuda_net.errors import ConfigError, EngineError
from llcuda_net.upstream.engine.binary import process as binary_process
from llcuda_net.upstream.engine.binary.process import binary_environment, withheld_variables
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.programs.probe import probe_program
from llcuda_net.upstream.engine.programs.program import Program
from llcuda_net.upstream.engine.supervisor import Engine
from tests.support.llama_server.behaviour import OLDER, Behaviour
from tests.support.llama_server.stand_in import StandIn, stand_in
from tests.support.processes import PATIENCE, children
from tests.support.upstream.tiny_model import write_tiny_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups")


async def wait_gone(pid: int) -> None:
    """Wait until a process that may be nobody's child has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[int]:
    """The pid of its llama-server, for the length of the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        assert engine.pid is not None
        yield engine.pid
        nursery.cancel_scope.cancel()


def client(engine: Engine) -> httpx.AsyncClient:
    assert engine.base_url is not None
    return httpx.AsyncClient(
        base_url=engine.base_url,
        trust_env=False,
        timeout=None,
        headers={"Authorization": f"Bearer {engine.api_key}"},
    )


async def refusal(program: Program, options: EngineOptions) -> str:
    engine = Engine(options, program)
    with pytest.raises(EngineError) as caught, trio.fail_after(PATIENCE):
        await engine.run()
    assert engine.pid is None
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
async def program(llama_server_binary: Path) -> Program:
    return await probe_program(llama_server_binary)


async def standing(folder: Path, behaviour: Behaviour | None = None, **told: Any) -> Program:
    return await probe_program(stand_in(folder, behaviour, **told).path)


async def test_serves_and_stops(tiny: Path, program: Program) -> None:
    changes: list[str | None] = []
    engine = Engine(
        EngineOptions(tiny, slots=3, ctx=256, alias="a name"),
        program,
        on_change=lambda: changes.append(engine.base_url),
    )
    async with running(engine) as pid, client(engine) as asked:
        url = engine.base_url
        assert url is not None
        assert url.startswith("http://127.0.0.1:")
        body = {"prompt": "hi", "n_predict": 3, "return_tokens": True, "ignore_eos": True}
        reply = (await asked.post("/completion", json=body)).json()
        assert len(reply["tokens"]) == 3
        assert reply["model"] == "a name"
        slots = (await asked.get("/slots")).json()
        assert [slot["n_ctx"] for slot in slots] == [256] * 3
        assert (await asked.get("/metrics")).status_code == 200
        found = (await asked.post("/embedding", json={"content": ["hi there", "b"]})).json()
        assert [len(one["embedding"]) for one in found] == [1, 1]  # pooled: one vector each
        del asked.headers["Authorization"]
        assert (await asked.get("/slots")).status_code == 401
        assert engine.unified
        facts = engine.facts()
        assert facts["engine"] == str(program.path)
        assert facts["features"] == ["completions", "embeddings", "tools"]
        assert facts["schema_engine"] in {"gbnf", "llguidance"}
        assert engine.public_facts() == {**facts, "engine": "llama-server"}
    await wait_gone(pid)
    assert engine.pid is None
    assert changes == [url, None]


async def test_neither_command_line_tells_the_key(tiny: Path, program: Program) -> None:
    engine = Engine(EngineOptions(tiny), program)
    async with running(engine) as pid:
        assert engine.api_key.encode() not in command_of(pid)
        keeper = command_of(parent_of(pid))
        assert b"keeper.py" in keeper
        assert engine.api_key.encode() not in keeper


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


async def test_signals_of_a_terminal_do_not_reach_it(tiny: Path, program: Program) -> None:
    engine = Engine(EngineOptions(tiny), program)
    async with running(engine) as pid, client(engine) as asked:
        assert os.getpgid(pid) == pid
        keeper = parent_of(pid)
        assert os.getpgid(keeper) == keeper
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(keeper, number)
        assert (await asked.get("/health")).status_code == 200
        assert (engine.pid, engine.restarts) == (pid, 0)


@pytest.mark.parametrize("who", ["llama-server", "keeper"])
async def test_what_is_killed_is_replaced(tiny: Path, program: Program, who: str) -> None:
    changed = trio.Event()
    engine = Engine(EngineOptions(tiny), program, on_change=lambda: changed.set())
    async with running(engine) as first:
        keeper = parent_of(first)
        changed = trio.Event()
        os.kill(first if who == "llama-server" else keeper, signal.SIGKILL)
        await changed.wait()
        assert engine.base_url is None
        changed = trio.Event()
        await changed.wait()
        await wait_gone(first)
        await wait_gone(keeper)
        assert engine.restarts == 1
        assert engine.pid not in {first, None}
        async with client(engine) as asked:
            assert (await asked.get("/slots")).status_code == 200


PARENT = """
import sys, trio
from pathlib import Path
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.programs.probe import probe_program
from llcuda_net.upstream.engine.supervisor import Engine

async def main():
    engine = Engine(EngineOptions(Path(sys.argv[1])), await probe_program(Path(sys.argv[2])))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        print("pid", engine.pid, file=sys.stderr, flush=True)

trio.run(main)
"""


@contextlib.asynccontextmanager
async def parent(tiny: Path, program: Program) -> AsyncIterator[tuple[trio.Process, int]]:
    """A process with an engine, and the pid of its llama-server."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", PARENT, str(tiny), str(program.path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path])},
    )
    assert process.stderr is not None
    async with process.stderr:
        said = b""
        while b"pid " not in said or not said.endswith(b"\n"):
            data = await process.stderr.receive_some()
            assert data, said
            said += data
        yield process, int(said.rpartition(b"pid ")[2])
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_it_goes_with_its_parent(
    tiny: Path, program: Program, number: signal.Signals
) -> None:
    async with parent(tiny, program) as (process, pid):
        keeper = parent_of(pid)
        process.send_signal(number)
        await wait_gone(pid)
        await wait_gone(keeper)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the parent does that, if it lives")
async def test_it_goes_with_its_keeper_though_nobody_is_left(tiny: Path, program: Program) -> None:
    async with parent(tiny, program) as (process, pid):
        os.kill(process.pid, signal.SIGSTOP)  # so that it cannot be the one that ends it
        os.kill(parent_of(pid), signal.SIGKILL)
        await wait_gone(pid)
        process.kill()


async def test_what_it_has_started_goes_too(tiny: Path, tmp_path: Path) -> None:
    """A script around a llama-server is its group, and not the program itself."""
    inner = stand_in(tmp_path).path
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{inner} "$@"\ntrue\n')
    wrapper.chmod(0o755)
    engine = Engine(EngineOptions(tiny), await probe_program(wrapper))
    async with running(engine) as pid:
        group = [pid, *children(pid)]
        assert len(group) > 1
    for one in group:
        await wait_gone(one)


async def test_one_of_an_older_build(tiny: Path, tmp_path: Path) -> None:
    engine = Engine(EngineOptions(tiny, slots=2, ctx=256), await standing(tmp_path, OLDER))
    async with running(engine), client(engine) as asked:
        slots = (await asked.get("/slots")).json()
        assert [slot["n_ctx"] for slot in slots] == [256] * 2
        assert not engine.unified


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"fail": "no memory"}, "insufficient memory .attempted to allocate 19531"),
        ({"fail": "no GPU memory"}, "cudaMalloc failed: out of memory"),
        ({"fail": "architecture"}, "unknown model architecture: 'abacus'"),
        ({"fail": "split"}, "failed to open GGUF file '.*-00002-of-00003.gguf'"),
        ({"fail": "mmproj"}, "mismatch between text model .n_embd = 192. and mmproj"),
        ({"crash": "load"}, "the engine was ended by SIGSEGV"),
    ],
)
async def test_why_a_model_did_not_load(
    tiny: Path, tmp_path: Path, told: dict[str, Any], words: str
) -> None:
    message = await refusal(await standing(tmp_path, **told), EngineOptions(tiny))
    assert message.startswith(f"cannot load {tiny}: ")
    assert re.search(words, message), message


async def test_a_model_that_it_refuses(tmp_path: Path, program: Program) -> None:
    path = write_tiny_model(tmp_path / "odd.gguf", architecture="nosuch")
    message = await refusal(program, EngineOptions(path))
    assert message == f"cannot load {path}: unknown model architecture: 'nosuch'"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--no-such-option", "1"), "invalid argument: --no-such-option"),
        (("--cache-type-k", "q9"), "it does not take an option: --cache-type-k: Unsupported"),
    ],
)
async def test_options_that_it_does_not_take(
    tiny: Path, program: Program, options: tuple[str, ...], words: str
) -> None:
    assert words in await refusal(program, EngineOptions(tiny, options=options))


async def test_options_that_it_takes(tiny: Path, program: Program) -> None:
    options = EngineOptions(tiny, slots=1, options=("--predict", "2"))
    engine = Engine(options, program)
    async with running(engine), client(engine) as asked:
        reply = await asked.post("/completion", json={"prompt": "hi", "ignore_eos": True})
        assert reply.json()["tokens_predicted"] == 2


async def test_options_are_not_for_the_builtin_engine(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"--temp .* --engine PATH"):
        Engine(EngineOptions(tiny, options=("--temp", "1")))


async def test_one_that_cannot_be_started(tiny: Path, tmp_path: Path) -> None:
    made = stand_in(tmp_path)
    program = await probe_program(made.path)
    made.path.unlink()
    message = await refusal(program, EngineOptions(tiny))
    assert f"{made.path} cannot run on this machine" in message
    assert "No such file" in message


async def test_cancelled_while_it_loads(tiny: Path, tmp_path: Path) -> None:
    made = stand_in(tmp_path, hang="load")
    engine = Engine(EngineOptions(tiny), await probe_program(made.path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run)
        pid = await first_start(made)
        nursery.cancel_scope.cancel()
    await wait_gone(pid)


async def first_start(made: StandIn) -> int:
    while not made.starts():  # noqa: ASYNC110 -- another process sets no Event of ours
        await trio.sleep(0.01)
    return made.starts()[0]


PORTS = """#!{python}
import sys
at = sys.argv.index("--port") + 1
port = sys.argv[at]
with open({log!r}, "a") as file:
    print(port, file=file)
if port == "0":
    print("main: server is listening on http://127.0.0.1:0 - starting the main loop", flush=True)
    import time
    time.sleep(600)
if port == {taken!r}:
    print("0.00.000.001 E srv  start: couldn't bind HTTP server socket, port: 1", flush=True)
    sys.exit(1)
import os
os.execv({inner!r}, [{inner!r}, *sys.argv[1:]])
"""


async def test_a_build_that_cannot_choose_its_port(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = stand_in(tmp_path)
    program = await probe_program(inner.path)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        good = one.getsockname()[1]
    ports = iter([1, good])
    monkeypatch.setattr(binary_process, "_free_port", lambda: next(ports))
    outer, tried = tmp_path / "outer", tmp_path / "tried"
    outer.write_text(
        PORTS.format(python=sys.executable, log=str(tried), taken="1", inner=str(inner.path))
    )
    outer.chmod(0o755)
    engine = Engine(EngineOptions(tiny), Program(outer, takes=program.takes))
    async with running(engine):
        assert engine.base_url == f"http://127.0.0.1:{good}"
    assert tried.read_text().split() == ["0", "1", str(good)]


SCRIPTED = """#!{python}
import sys, http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {{"status": "ok"}})
    def do_POST(self):
        status, message, printed = {answer}
        if printed:
            print(printed, file=sys.stderr, flush=True)
        if status == 200:
            return self.answer(200, {{"content": "a"}})
        self.answer(status, {{"error": {{"code": status, "message": message}}}})
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"main: server is listening on http://127.0.0.1:{{server.server_port}}", flush=True)
server.serve_forever()
"""


def scripted(folder: Path, answer: str) -> Program:
    """A program that listens and is healthy; `answer`: code for status, message and log line."""
    takes = dict.fromkeys(("--embeddings", "--parallel", "--ctx-size", "--pooling"), "N")
    path = folder / "llama-server"
    path.write_text(SCRIPTED.format(python=sys.executable, answer=answer))
    path.chmod(0o755)
    return Program(path, takes=takes)


async def test_a_build_that_does_not_complete_beside_embeddings(tiny: Path, tmp_path: Path) -> None:
    message = "This server does not support completions. Start it without `--embeddings`"
    answer = f'(501, {message!r}, "") if "--embeddings" in sys.argv else (200, "", "")'
    with capture_logs() as logs:
        engine = Engine(EngineOptions(tiny), scripted(tmp_path, answer))
        async with running(engine):
            assert engine.facts()["schema_engine"] == "llguidance"
            assert engine.facts()["features"] == ["completions"]
    told = [one for one in logs if one["event"] == "engine_does_not_embed"]
    assert len(told) == 1
    assert "engine_started" in [one["event"] for one in logs]


async def test_what_checks_schemas(tiny: Path, tmp_path: Path) -> None:
    """Asking that is refused; the refusal is no warning, as one of a client's constraint is."""
    why = "failed to parse grammar: llguidance is not enabled"
    with capture_logs() as logs:
        program = scripted(tmp_path, f'(400, {why!r}, "0.01.753.725 E failed to parse grammar")')
        engine = Engine(EngineOptions(tiny), program)
        async with running(engine), client(engine) as asked:
            assert engine.facts()["schema_engine"] == "gbnf"
            await asked.post("/completion", json={})
            while not told(logs):  # noqa: ASYNC110 -- a line of another process sets no Event
                await trio.sleep(0.01)
    assert len(told(logs)) == 1


def told(logs: list[Any]) -> list[Any]:
    return [one for one in logs if one["event"] == "engine_refused_constraint"]


def test_the_environment() -> None:
    ours = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "LLAMA_CACHE": "/c",
        "LLAMA_ARG_PORT": "1",
        "LLAMA_API_KEY": "theirs",
        "LLAMA_SERVER_ROUTER_PORT": "1",
        "LLAMA_LOG_FILE": "/l",
        "AIP_MODE": "PREDICTION",
    }
    assert binary_environment(ours) == {
        "GGML_NO_BACKTRACE": "1",
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "LLAMA_CACHE": "/c",
    }
    assert withheld_variables(ours) == ("LLAMA_ARG_PORT",)


async def test_variables_that_are_not_passed_are_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "7")
    engine = Engine(EngineOptions(tiny, slots=1, ctx=128), await standing(tmp_path))
    with capture_logs() as logs:
        async with running(engine), client(engine) as asked:
            assert (await asked.get("/slots")).json()[0]["n_ctx"] == 128
    (told,) = (one for one in logs if one["event"] == "engine_environment_ignored")
    assert told["variables"] == ["LLAMA_ARG_CTX_SIZE"]


async def test_no_descriptor_is_left_open(tiny: Path, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    program = await standing(tmp_path)

    async def once() -> None:
        async with running(Engine(EngineOptions(tiny), program)):
            pass

    await once()
    before = descriptors()
    await once()
    assert descriptors() == before
