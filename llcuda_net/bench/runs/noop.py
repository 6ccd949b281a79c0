"""A server that speaks the llcuda protocol and computes nothing: what a load client costs itself.

Run as a process; its first line is "listening on HOST:PORT", and it ends when stdin is closed.
Every token has a frame and a write of its own, as those of a server that streams.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import trio

from llcuda_net.util.terminal import echo
from llcuda_protocol import (
    Accepted,
    Connection,
    ConnectionClosed,
    Done,
    Generate,
    Hello,
    Report,
    Role,
    Status,
    Tokens,
    Welcome,
)

#: The command that runs it.
COMMAND = (sys.executable, "-m", "llcuda_net.bench.runs.noop")
#: What it says to the client's hello: the version, the largest frame and the most streams.
_WELCOME = Welcome(1, 1 << 24, 4096)


async def serve(stream: trio.SocketStream) -> None:
    """Answer one client until it goes."""
    connection = Connection(Role.SERVER)
    try:
        async with stream:
            while data := await stream.receive_some(65_536):
                connection.receive_data(data)
                while (event := connection.next_event()) is not None:
                    if isinstance(event, ConnectionClosed):
                        return
                    for out in answer(connection, event):
                        await stream.send_all(out)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


def answer(connection: Connection, event: object) -> Iterator[bytes]:
    """The bytes that answer an event, one write each."""
    if isinstance(event, Hello):
        yield connection.send(_WELCOME)
    elif isinstance(event, Status):
        upstreams = [{"model": "none", "slots": 4096}]
        yield connection.send(Report(event.stream, {"server": "noop", "upstreams": upstreams}))
    elif isinstance(event, Generate):
        count = int((event.params or {}).get("n_predict", 16))
        yield connection.send(Accepted(event.stream, f"noop-{event.stream}"))
        for number in range(count):
            yield connection.send(Tokens(event.stream, number, [" word"]))
        usage = {"prompt_tokens": 1, "completion_tokens": count}
        yield connection.send(Done(event.stream, "length", usage=usage, timings={}))


async def main() -> None:
    """Serve until stdin is closed."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    echo(f"listening on 127.0.0.1:{listener.socket.getsockname()[1]}", flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as stdin:
            while await stdin.receive_some(4096):
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
