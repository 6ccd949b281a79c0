"""A proxy between llcuda-server and its upstreams that cuts an answer after so many events."""

from __future__ import annotations

import subprocess
from pathlib import Path

import trio

from tools.campaign.server import free_port

_SLICE = 16 << 10
#: Seconds for an upstream to load its model.
_PATIENCE = 300.0


class Cutter:
    """Forwards everything, and once, when told to, closes a connection in the middle of an answer.

    Attributes:
        cut_after: events of an answer after which its connection is closed; 0: never.
        events: that have been forwarded since somebody set it to 0.
    """

    def __init__(self) -> None:
        self.cut_after = 0
        self.events = 0

    async def run(
        self, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Forward connections to this port of this machine until cancelled; starts with our own."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(client: trio.SocketStream) -> None:
            await self._forward(client, port)

        async with listener:
            task_status.started(listener.socket.getsockname()[1])
            await trio.serve_listeners(serve, [listener])

    async def _forward(self, client: trio.SocketStream, port: int) -> None:
        try:
            upstream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.aclose_forcefully(client)
            return
        async with client, upstream, trio.open_nursery() as nursery:

            async def back() -> None:
                await self._back(upstream, client)
                nursery.cancel_scope.cancel()

            nursery.start_soon(back)
            await _copy(client, upstream)
            nursery.cancel_scope.cancel()

    async def _back(self, upstream: trio.SocketStream, client: trio.SocketStream) -> None:
        seen = 0
        try:
            while data := await upstream.receive_some(_SLICE):
                events = data.count(b"data: ")
                seen += events
                self.events += events
                if self.cut_after and seen > self.cut_after:
                    self.cut_after = 0
                    return  # this event, and all behind it, is lost
                await client.send_all(data)
        except trio.BrokenResourceError:
            return


async def _copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
    try:
        while data := await source.receive_some(_SLICE):
            await target.send_all(data)
    except trio.BrokenResourceError:
        return


class LlamaProcess:
    """A llama-server with one model.

    Args:
        program: llama-server itself.
        model: a GGUF file.
        threads: with which it computes.
    """

    def __init__(self, program: str, model: str, threads: int) -> None:
        self.port = free_port()
        self._command = [program, "-m", model, "--port", str(self.port), "-t", str(threads)]
        self._command += ["-c", "4096", "-np", "2", "--jinja"]
        self._process: trio.Process | None = None

    async def start(self, log: Path) -> None:
        """Start it, and return when it answers."""
        with log.open("wb") as file:
            self._process = await trio.lowlevel.open_process(
                self._command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        with trio.fail_after(_PATIENCE):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                except OSError:
                    await trio.sleep(0.2)
                else:
                    await stream.aclose()
                    return

    async def end(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
