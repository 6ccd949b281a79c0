"""What --start starts: an upstream and an llcuda-server before it, for as long as a block."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import trio

from llcuda_net.batch.targets import in_nursery
from llcuda_net.cli.common import CommandError
from llcuda_net.upstream.engine.supervisor import Engine, EngineOptions
from tools import synthetic_upstream

_ROOT = Path(__file__).resolve().parents[2]
#: Seconds for llcuda-server to say where it listens.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Stack:
    """Where things are: the llcuda-server, the upstream behind it, and that one's key."""

    server: str
    upstream: str
    api_key: str | None = None


@asynccontextmanager
async def running(
    kind: str, *, slots: int, rate: float = 200.0, durability: str = "disk", seed: int = 0
) -> AsyncIterator[Stack]:
    """Start an upstream and a server before it; both end with the block.

    Args:
        kind: "demo" (the built-in engine with the demonstration model) or "synthetic".
        rate: tokens/s of each slot of the synthetic upstream.

    Raises:
        CommandError: llcuda-server did not start.
        EngineError: the engine did not.
    """
    with tempfile.TemporaryDirectory(prefix="llcuda-measure-") as folder:
        if kind == "synthetic":
            options = ["--rate", str(rate), "--slots", str(slots), "--seed", str(seed)]
            with synthetic_upstream.running(*options, "--ctx", "100000") as url:
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
    command = [sys.executable, "-m", "llcuda_net.cli.server", "--port", "0"]
    command += ["--upstream", upstream, "--log-level", "error", "--durability", durability]
    command += ["--data-dir", str(folder / "data")]
    if api_key is not None:
        key_file = folder / "key"
        key_file.touch(0o600)
        key_file.write_text(api_key)
        command += ["--upstream-api-key-file", str(key_file)]
    # A group of its own, so that Ctrl-C reaches it through us, once.
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, process_group=0, cwd=_ROOT
    )
    assert process.stdout is not None
    try:
        line = b""
        with trio.move_on_after(_PATIENCE):
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some(4096)
                if not data:
                    break
                line += data
        if not line.startswith(b"listening on "):
            raise CommandError("llcuda-server did not start", 1)
        yield line.split()[-1].decode()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdout.aclose()
