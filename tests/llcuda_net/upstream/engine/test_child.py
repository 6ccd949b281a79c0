"""The built-in engine, with real child processes.

Rules here: nothing waits for a length of time; a process that should end is waited for until it
has ended. Where the child itself is not the point, a stand-in for xllamacpp is put on its path.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine import process
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.process import ChildEnd
from llcuda_net.upstream.engine.supervisor import Engine
from tests.support.upstream.tiny_model import write_tiny_model

LOADS_FOREVER = """
import ctypes, os

def Server(params):
    fd = os.open(os.environ["MARK"], os.O_WRONLY)
    os.write(fd, b"loading")
    while True:
        ctypes.PyDLL(None).pause()  # with the GIL, as xllamacpp does while it loads
"""


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def wait_gone(pid: int) -> None:
    """Wait until a process that may be nobody's child has ended."""
    if not hasattr(os, "pidfd_open"):
        while not is_gone(pid):  # noqa: ASYNC110 -- another process sets no Event of ours
            await trio.sleep(0.01)
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)  # also where nobody reaps it
    finally:
        os.close(fd)


async def complete(engine: Engine) -> httpx.Response:
    assert engine.base_url is not None
    async with httpx.AsyncClient(base_url=engine.base_url, trust_env=False) as client:
        return await client.post(
            "/completion",
            json={"prompt": "hi", "n_predict": 3, "return_tokens": True, "ignore_eos": True},
            headers={"Authorization": f"Bearer {engine.api_key}"},
            timeout=None,
        )


async def refusal(options: EngineOptions) -> str:
    engine = Engine(options)
    with pytest.raises(EngineError) as caught:
        await engine.run()
    assert engine.pid is None
    assert engine.base_url is None
    message = str(caught.value)
    assert "\n" not in message
    return message


async def test_serves_and_stops(tiny: Path) -> None:
    changes: list[str | None] = []
    texts: list[str] = []
    engine = Engine(
        EngineOptions(tiny, slots=3, ctx=256),
        on_progress=texts.append,
        on_change=lambda: changes.append(engine.base_url),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        url, pid = engine.base_url, engine.pid
        assert url is not None
        assert pid is not None
        assert url.startswith("http://127.0.0.1:")
        reply = (await complete(engine)).json()
        assert len(reply["tokens"]) == 3
        assert reply["model"] == "tiny"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=None) as client:
            assert (await client.post("/completion", json={"prompt": "hi"})).status_code == 401
            assert (await client.get("/slots")).status_code == 401
            client.headers["Authorization"] = f"Bearer {engine.api_key}"
            slots = (await client.get("/slots")).json()
            assert [slot["n_ctx"] for slot in slots] == [256] * 3
            assert (await client.get("/metrics")).status_code == 200
            found = (await client.post("/embedding", json={"content": ["hi there", "b"]})).json()
            assert [len(one["embedding"]) for one in found] == [1, 1]  # pooled: one vector each
            alone = (await client.post("/embedding", json={"content": "hi there"})).json()
            # The same in company as alone, but for rounding; pooled in pieces it differs by more.
            assert found[0]["embedding"][0] == pytest.approx(alone[0]["embedding"][0], abs=5e-3)
        nursery.cancel_scope.cancel()
    assert is_gone(pid)  # reaped: not even a zombie is left
    assert engine.pid is None
    assert changes == [url, None]
    assert texts[0].startswith("loading tiny.gguf, 440.2 KiB")
    assert engine.api_key not in repr(texts)


async def test_the_command_line_does_not_tell_the_key(tiny: Path) -> None:
    engine = Engine(EngineOptions(tiny))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        shown = await trio.run_process(
            ["ps", "-ww", "-o", "args=", "-p", str(engine.pid)], capture_stdout=True
        )
        assert b"engine/child.py" in shown.stdout
        assert engine.api_key.encode() not in shown.stdout
        nursery.cancel_scope.cancel()


async def test_signals_for_the_group_leave_the_child_alone(tiny: Path) -> None:
    engine = Engine(EngineOptions(tiny))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        pid = engine.pid
        assert pid is not None
        assert os.getpgid(pid) == pid  # its own: a terminal's Ctrl-C does not reach it
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert (await complete(engine)).status_code == 200
        assert (engine.pid, engine.restarts) == (pid, 0)
        nursery.cancel_scope.cancel()


async def test_a_killed_child_is_replaced(tiny: Path) -> None:
    changed = trio.Event()
    engine = Engine(EngineOptions(tiny), on_change=lambda: changed.set())
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        first = engine.pid
        assert first is not None
        changed = trio.Event()
        os.kill(first, signal.SIGKILL)
        await changed.wait()
        assert engine.base_url is None
        changed = trio.Event()
        await changed.wait()
        assert engine.restarts == 1
        assert engine.pid != first
        assert (await complete(engine)).status_code == 200
        nursery.cancel_scope.cancel()


async def test_a_bad_file_is_refused_before_a_process_is_started(tmp_path: Path) -> None:
    async def launch(*_: object) -> ChildEnd:
        raise AssertionError

    (tmp_path / "text.gguf").write_bytes(b"hello")
    for path in (tmp_path / "absent.gguf", tmp_path, tmp_path / "text.gguf"):
        with pytest.raises(EngineError, match=path.name):
            await Engine(EngineOptions(path), launch=launch).run()


async def test_a_model_that_llama_cpp_refuses(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "odd.gguf", architecture="nosuch")
    message = await refusal(EngineOptions(path))
    assert message == f"cannot load {path}: unknown model architecture: 'nosuch'"


async def test_no_wheel_for_this_machine(tiny: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("raise ImportError('wrong ELF class')")
    message = await refusal(EngineOptions(tiny))
    assert "cannot run on this machine (ImportError: wrong ELF class)" in message
    assert "--upstream" in message


async def test_a_library_that_is_missing_is_named(
    tiny: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("raise ImportError('libgomp.so.1: cannot open shared object file: No such file')")
    message = await refusal(EngineOptions(tiny))
    assert "install libgomp.so.1 (Debian, Ubuntu: apt install libgomp1), or name" in message


async def test_layers_for_a_gpu_that_is_not_there(
    tiny: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("""
        ggml_backend_dev_type = SimpleNamespace(GGML_BACKEND_DEVICE_TYPE_CPU=0)
        def get_device_info():
            return [{"type": 0}]
    """)
    assert await refusal(EngineOptions(tiny, gpu_layers=5)) == (
        f"cannot load {tiny}: --gpu-layers 5, and the built-in engine finds no GPU: leave that "
        "out, or see docs/gpu.md"
    )


async def test_a_crash_while_loading(tiny: Path, stand_in: Callable[[str], None]) -> None:
    stand_in(r"""
        import os, signal
        def Server(params):
            os.write(1, b"x" * 100_000 + b"\n\xff\x1b[31m\nGGML_ASSERT(a == b) failed")
            os.kill(os.getpid(), signal.SIGABRT)
    """)
    message = await refusal(EngineOptions(tiny))
    assert message.endswith("the engine was ended by SIGABRT: GGML_ASSERT(a == b) failed")


async def test_a_traceback_stays_in_the_log(
    tiny: Path, stand_in: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in("def Server(params): raise OSError('no')")
    assert (await refusal(EngineOptions(tiny))).endswith(": no")
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FIFO that the stand-in holds open for as long as its process lives."""
    path = tmp_path / "mark"
    os.mkfifo(path)
    monkeypatch.setenv("MARK", str(path))
    return path


async def read_mark(path: Path, loading: Callable[[], None]) -> None:
    """Call `loading` when the child has begun to load; return when its process has ended."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await trio.lowlevel.wait_readable(fd)  # before anyone has opened it a read would see its end
    async with trio.lowlevel.FdStream(fd) as stream:
        assert await stream.receive_some() == b"loading"
        loading()
        assert await stream.receive_some() == b""


async def test_cancelled_while_loading(
    tiny: Path, stand_in: Callable[[str], None], mark: Path
) -> None:
    stand_in(LOADS_FOREVER)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await Engine(EngineOptions(tiny)).run()

        nursery.start_soon(run)
        await read_mark(mark, scope.cancel)


async def test_a_child_that_does_not_listen_is_killed(
    tiny: Path, stand_in: Callable[[str], None], mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_STOP_SECONDS", 0.01)
    stand_in("import signal; signal.signal(signal.SIGIO, signal.SIG_IGN)\n" + LOADS_FOREVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Engine(EngineOptions(tiny)).run)
        await read_mark(mark, nursery.cancel_scope.cancel)


PARENT = """
import sys, trio
from pathlib import Path
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.supervisor import Engine

async def main():
    engine = Engine(EngineOptions(Path(sys.argv[1])))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        print("pid", engine.pid, flush=True)

trio.run(main)
"""


async def start_parent(tiny: Path) -> trio.Process:
    return await trio.lowlevel.open_process(
        [sys.executable, "-c", PARENT, str(tiny)],
        stdout=subprocess.PIPE,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path])},
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_the_child_goes_with_its_parent(tiny: Path, number: signal.Signals) -> None:
    process = await start_parent(tiny)
    assert process.stdout is not None
    said = b""
    # Among lines of the engine's log, of which some may have come with it.
    while (told := re.search(rb"^pid (\d+)\n", said, re.MULTILINE)) is None:
        data = await process.stdout.receive_some()
        assert data
        said += data
    pid = int(told[1])
    process.send_signal(number)
    await wait_gone(pid)
    await process.wait()
    await process.stdout.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the child ends when the load does")
async def test_the_child_goes_with_its_parent_while_loading(
    tiny: Path, stand_in: Callable[[str], None], mark: Path
) -> None:
    stand_in(LOADS_FOREVER)
    process = await start_parent(tiny)
    await read_mark(mark, process.kill)
    await process.wait()
    assert process.stdout is not None
    await process.stdout.aclose()


async def test_no_descriptor_is_left_open(tiny: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    async def once() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(Engine(EngineOptions(tiny)).run)
            nursery.cancel_scope.cancel()

    await once()
    before = descriptors()
    await once()
    assert descriptors() == before
