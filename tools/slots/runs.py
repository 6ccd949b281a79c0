"""One run: so many streams that are always full, along one way, for some seconds."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any

from tools.load.loop import LoadLoop
from tools.load.streams import Connection, LoadError, Recorder
from tools.slots.connections import Answer, DirectConnection, ServerConnection
from tools.slots.workload import Sizes, workload

Address = tuple[str, int]
#: Seconds for all streams to have a first token, and for slots to be free again.
_PATIENCE = 120.0


@dataclass
class Run:
    """What one run gave.

    Attributes:
        way: direct, llcuda or against.
        kind: of workload.
        tokens_per_s: of all streams together.
        first_ms: from a request to its first token, of each request that was begun meanwhile.
        answers: that ended.
        cached: share of the prompts' tokens that the upstream's cache held; None: not known.
    """

    way: str
    kind: str
    streams: int
    repeat: int
    seconds: float
    tokens_per_s: float
    answers: int
    first_ms: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


class Streams:
    """Streams along one way: each asks again as soon as it is answered."""

    def __init__(
        self, way: str, address: Address, kind: str, count: int, sizes: Sizes, seed: int
    ) -> None:
        self._recorder = Recorder()
        self._loop = LoadLoop()
        self._address, self._direct = address, way == "direct"
        self._workload = workload(kind, count, sizes, seed)
        self._connections: dict[int, Connection] = {}
        self._now: list[Answer] = []
        self.ended: list[Answer] = []
        if not self._direct:
            self._connections = dict.fromkeys(range(count), self._connect())
        for stream in range(count):
            self._now.append(self._begin(stream))

    def _connect(self) -> Connection:
        kind = DirectConnection if self._direct else ServerConnection
        connection = kind(self._address, self._recorder, False)
        self._loop.add(connection)
        return connection

    def _begin(self, stream: int) -> Answer:
        answer = Answer(self._workload.next(stream))
        if self._direct:  # a llama-server closes each connection behind a stream
            if stream in self._connections:
                self._loop.remove(self._connections[stream])
            self._connections[stream] = self._connect()
        self._connections[stream].begin(answer)
        return answer

    def _step(self) -> None:
        for stream, answer in enumerate(self._now):
            if answer.ended:
                self.ended.append(answer)
                self._workload.answered(stream, "".join(answer.text))
                self._now[stream] = self._begin(stream)

    @property
    def pieces(self) -> int:
        """That have come so far."""
        return self._recorder.tokens

    @property
    def under_way(self) -> list[Answer]:
        """The requests that have not ended."""
        return self._now

    def run(self, seconds: float) -> None:
        """Keep all streams full for so long."""
        self._loop.run(seconds, self._step)

    def begin(self) -> None:
        """Run until each stream has had a first token.

        Raises:
            LoadError: it took too long.
        """
        waiting = list(self._now)
        deadline = time.monotonic() + _PATIENCE
        while not all(answer.first_ns or answer.ended for answer in waiting):
            if time.monotonic() > deadline:
                raise LoadError(f"no first token in {_PATIENCE:g} s")
            self.run(0.02)

    def close(self) -> None:
        """Close the connections, which ends all that is under way."""
        self._loop.close()


def measure(
    way: str,
    address: Address,
    kind: str,
    count: int,
    sizes: Sizes,
    seed: int,
    repeat: int,
    seconds: float,
    warmup: float,
) -> Run:
    """Measure one run.

    Raises:
        LoadError: an answer or a connection went wrong.
    """
    streams = Streams(way, address, kind, count, sizes, seed)
    try:
        streams.begin()
        streams.run(warmup)
        began, before, ended = time.monotonic_ns(), streams.pieces, len(streams.ended)
        streams.run(seconds)
        over = time.monotonic_ns()
        pieces, took = streams.pieces - before, (over - began) / 1e9
        whole = streams.ended
        # A token that is no whole character has no piece of its own: counted by what ended.
        shown = sum(answer.count for answer in whole)
        share = sum(answer.said for answer in whole) / shown if shown else 1.0
        begun = [one for one in (*whole, *streams.under_way) if one.started_ns >= began]
        first = [(one.first_ns - one.started_ns) / 1e6 for one in begun if one.first_ns]
        return Run(
            way,
            kind,
            count,
            repeat,
            took,
            pieces * share / took,
            len(whole) - ended,
            [round(ms, 3) for ms in first],
        )
    finally:
        streams.close()


def ask(address: Address, path: str, body: Any = None) -> Any:
    """A short request to the llama-server."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, data, kind)
        answer = connection.getresponse()
        if answer.status != 200:
            raise LoadError(f"{path} is answered with {answer.status}")
        return json.loads(answer.read())
    except OSError as error:
        raise LoadError(f"{path}: {error}") from None
    finally:
        connection.close()


def settle(address: Address) -> None:
    """Wait until the llama-server's slots are idle.

    Raises:
        LoadError: they still work.
    """
    deadline = time.monotonic() + _PATIENCE
    while any(slot["is_processing"] for slot in ask(address, "/slots")):
        if time.monotonic() > deadline:
            raise LoadError("the slots work on")
        time.sleep(0.01)
