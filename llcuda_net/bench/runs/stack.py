"""Starting what is measured: an upstream and an llcuda-server before it, for a block's length."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import trio

from llcuda_net.batch.targets.opening import in_nursery
from llcuda_net.errors import LlcudaError
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.supervisor import Engine

#: Seconds for a process to say where it listens.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Stack:
    """Where things are: the server, the upstream behind it if known, and the upstream's key."""

    server: str
    upstream: str | None
    api_key: str | None = None


@asynccontextmanager
async def running(
    *, slots: int, durability: str = "disk", upstream: Sequence[str] | None = None
) -> AsyncIterator[Stack]:
    """Start an upstream and a server before it; both end with the block.

    Args:
        slots: of the built-in engine.
        upstream: the command of another upstream; None: the built-in engine with the
            demonstration model.

    Raises:
        LlcudaError: one of them did not start.
    """
    with tempfile.TemporaryDirectory(prefix="llcuda-measure-") as folder:
        if upstream is not None:
            async with listening(upstream, "the upstream") as host:
                url = f"http://{host}"
                async with _server(url, None, Path(folder), durability) as address:
                    yield Stack(address, url)
            return
        with resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as model:
            engine = Engine(EngineOptions(model, slots=slots))
            async with in_nursery() as nursery:
                await nursery.start(engine.run)
                url = str(engine.base_url)
                async with _server(url, engine.api_key, Path(folder), durability) as address:
                    yield Stack(address, url, engine.api_key)
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def _server(
    upstream: str, api_key: str | None, folder: Path, durability: str
) -> AsyncIterator[str]:
    """An llcuda-server by this interpreter; its address."""
    command = [sys.executable, "-m", "llcuda_net.cli.server", "--port", "0"]
    command += ["--upstream", upstream, "--log-level", "error", "--durability", durability]
    command += ["--data-dir", str(folder / "data")]
    if api_key is not None:
        key_file = folder / "key"
        key_file.touch(0o600)
        key_file.write_text(api_key)
        command += ["--upstream-api-key-file", str(key_file)]
    async with listening(command, "llcuda-server") as address:
        yield address


@asynccontextmanager
async def listening(command: Sequence[str], name: str) -> AsyncIterator[str]:
    """A process that first says "listening on HOST:PORT"; its address. It ends with the block.

    Raises:
        LlcudaError: it did not start.
    """
    # A group of its own, so that Ctrl-C reaches it through us, once.
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = b""
        with trio.move_on_after(_PATIENCE):
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some(4096)
                if not data:
                    break
                line += data
        if not line.startswith(b"listening on "):
            raise LlcudaError(f"{name} did not start")
        yield line.split()[-1].decode()
    finally:
        with trio.CancelScope(shield=True):
            with suppress(ProcessLookupError):  # what it has started, too
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await process.stdout.aclose()
            await process.stdin.aclose()
