"""Faults of a disk under a real server: a directory that goes away, damage, a write that stalls.

    python tools/crash/faults.py FILE [llcuda-server's options]

runs llcuda-server with a disk on which each write waits while FILE exists.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import trio

import llcuda_net
from llcuda_net.cli import server
from llcuda_net.storage import damage
from llcuda_net.storage.journal.disk import RealFiles
from tools.campaign.server import Server
from tools.campaign.upstreams import SYNTHETIC, running

#: Seconds for anything to happen, on a busy machine.
PATIENCE = 60.0
#: Answers to be had while the disk stalls.
_PINGS = 10
_TOKENS = 400


async def run(rounds: int, rng: random.Random, folder: Path) -> list[str]:
    """Do each of the faults, the damage in so many rounds: what must not be.

    Raises:
        StartError, ServerError: something did not start.
    """
    options = ["--rate", "60", "--slots", "4", "--exit-on-eof"]
    found: list[str] = []
    async with running(1, SYNTHETIC, options, folder) as (upstream,):
        flags = ["--upstream", upstream.url]
        for work in (_removed, _stalled):
            found += await work(folder, flags)
        for number in range(rounds):
            found += await _damaged(folder / f"damaged-{number}", flags, rng)
    return found


async def _removed(folder: Path, flags: list[str]) -> list[str]:
    out = []
    for what in ("", "journal", "results.db"):
        one = Server(folder / f"removed-{what.partition('.')[0]}", flags)
        try:
            await one.start()
            await one.ready()
            async with llcuda_net.connect(one.address) as client:
                await _answer(client)
                gone = one.folder / what
                if gone.is_dir():
                    # Aside first: the server may make a file while it is emptied.
                    shutil.rmtree(gone.rename(folder / f"gone-{len(what)}"), ignore_errors=True)
                else:
                    gone.unlink()
                try:
                    await _answer(client)
                    out.append(f"{gone} was deleted, and a request acknowledged")
                except llcuda_net.RequestError as error:
                    if str(error.code) != "storage":
                        out.append(f"{gone} was deleted, and a request failed with {error}")
                if "refuses" not in (await client.status())["store"]:
                    out.append(f"{gone} was deleted, and the status does not say so")
        finally:
            await one.end()
    return out


async def _stalled(folder: Path, flags: list[str]) -> list[str]:
    stall = folder / "stall"
    one = Server(folder / "stalled", flags, str(stall), Path(__file__))
    try:
        await one.start()
        await one.ready()
        async with (
            llcuda_net.connect(one.address) as client,
            client.generate("stall", n_predict=_TOKENS) as stream,
        ):
            await anext(aiter(stream))
            stall.touch()
            try:
                with trio.move_on_after(PATIENCE) as patience:
                    for _ in range(_PINGS):
                        await client.ping()
                    async with llcuda_net.connect(one.address) as late:
                        await late.status()
            finally:
                stall.unlink()
            if patience.cancelled_caught:
                return ["a write that stalls holds up other clients"]
    finally:
        await one.end()
    return []


async def _damaged(folder: Path, flags: list[str], rng: random.Random) -> list[str]:
    """A kill, then damage in the newest segment: what was acknowledged is there, or told of."""
    one = Server(folder, flags)
    ids: list[str] = []
    try:
        await one.start()
        await one.ready()
        async with llcuda_net.connect(one.address) as client:
            for number in range(3):
                async with client.generate(f"question {number}", n_predict=_TOKENS) as stream:
                    ids.append(stream.id)
                    await anext(aiter(stream))
                    await stream.detach()
        await one.kill()
    finally:
        await one.end()
    newest = max((folder / "journal").glob("*.journal"))
    data = bytearray(newest.read_bytes())
    at = rng.randrange(len(data))
    how = rng.choice(["flip", "zeros", "cut"])
    if how == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif how == "zeros":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    else:
        del data[at:]
    newest.write_bytes(data)
    lost = []
    try:
        await one.start()
        await one.ready()
        async with llcuda_net.connect(one.address) as client:
            for id_ in ids:
                try:
                    async with client.attach(id_) as stream:
                        await anext(aiter(stream))
                except llcuda_net.RequestError:
                    lost.append(id_)
    finally:
        await one.end()
    if lost and not damage.noted(folder):
        return [f"{how} at byte {at} lost {len(lost)} generations silently"]
    return []


async def _answer(client: Any) -> None:
    async with client.generate("hello", n_predict=5) as stream:
        async for _ in stream:
            pass


def _stall_while(file: str) -> None:
    write = os.pwrite

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        while Path(file).exists():
            time.sleep(0.01)
        return write(descriptor, data, offset)

    RealFiles.pwrite = staticmethod(pwrite)


if __name__ == "__main__":
    _stall_while(sys.argv[1])
    sys.exit(server.main(sys.argv[2:]))
