"""What the no-op server answers by llcuda's protocol."""

from __future__ import annotations

from collections.abc import Iterator

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

#: What it says to the client's hello: the version, the largest frame and the most streams.
_WELCOME = Welcome(1, 1 << 24, 4096)
#: What it says of itself.
_STATUS = {"server": "noop", "upstreams": [{"model": "none", "slots": 4096}]}


class LlcudaSide:
    """One connection; `feed` gives the answers that what has come asks for.

    Attributes:
        closing: the client has said goodbye.
    """

    def __init__(self) -> None:
        self.closing = False
        self._connection = Connection(Role.SERVER)

    def feed(self, data: bytes) -> list[Iterator[bytes]]:
        """Take what came; each answer gives the bytes of one write after the other.

        An answer that may not go on before more has come gives none.
        """
        self._connection.receive_data(data)
        found = []
        while (event := self._connection.next_event()) is not None:
            if isinstance(event, ConnectionClosed):
                self.closing = True
                break
            found.append(self._answer(event))
        return found

    def _answer(self, event: object) -> Iterator[bytes]:
        send = self._connection.send
        if isinstance(event, Hello):
            yield send(_WELCOME)
        elif isinstance(event, Status):
            yield send(Report(event.stream, _STATUS))
        elif isinstance(event, Generate):
            count = int((event.params or {}).get("n_predict", 16))
            yield send(Accepted(event.stream, f"noop-{event.stream}"))
            for number in range(count):
                while not self._connection.credit(event.stream):
                    yield b""
                yield send(Tokens(event.stream, number, [" word"]))
            usage = {"prompt_tokens": 1, "completion_tokens": count}
            yield send(Done(event.stream, "length", usage=usage, timings={}))
