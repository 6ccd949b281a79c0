"""A real server at the level cluster that is killed for good, and its disk thrown away."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from shutil import rmtree

import pytest

from llcuda_net.cluster import leases, recovery
from llcuda_net.storage.postgres.connection import Session
from llcuda_net.storage.replica.interface import Former
from llcuda_protocol import Accepted, Done, Event, Tokens
from tests.support.processes import running_server
from tests.support.raw_client import RawClient, ask, connected
from tests.support.storage.postgres import Postgres
from tools import synthetic_upstream
from tools.synthetic.tokens import generation

STREAMS = 4


class Seen:
    """What a client has got of its streams."""

    def __init__(self) -> None:
        self.ids: dict[int, str] = {}
        self.pieces: dict[int, list[str]] = {stream: [] for stream in range(1, STREAMS + 1)}
        self.done: set[int] = set()

    def take(self, event: Event) -> None:
        if isinstance(event, Accepted):
            self.ids[event.stream] = event.id
        elif isinstance(event, Tokens):
            self.pieces[event.stream] += event.pieces
        elif isinstance(event, Done):
            self.done.add(event.stream)

    @property
    def count(self) -> int:
        return sum(map(len, self.pieces.values()))


def drain(client: RawClient, seen: Seen) -> None:
    """Take what a server that is gone had sent."""
    with contextlib.suppress(OSError):
        while data := client.sock.recv(1 << 16):
            client.connection.receive_data(data)
    while (event := client.connection.next_event()) is not None:
        seen.take(event)


def left_by_the_only_server(url: str) -> tuple[Former, dict[str, str]]:
    """What another server finds when it takes over, and the results that there are."""
    session = Session(url, write=True)
    try:
        me = session.change("it", lambda db: leases.join(db, "heir", "127.0.0.1:1"))
        (other,) = (one.number for one in session.ask("it", leases.members) if one.number != me)
        assert session.change("it", lambda db: leases.fence_former(db, me, other))
        rows = session.ask("it", lambda db: db.execute("SELECT id, state FROM results").fetchall())
        return session.ask("it", lambda db: recovery.read(db, other)), dict(rows)
    finally:
        session.close()


@pytest.mark.parametrize("seed", range(3))
def test_what_was_seen_is_in_the_database(seed: int, postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    until = random.Random(seed).randrange(20, 1000)
    prompts = {stream: f"tell me story {stream}" for stream in range(1, STREAMS + 1)}
    seen = Seen()
    with synthetic_upstream.running("--rate", "400", "--slots", str(STREAMS)) as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path / "disk"), "--store", url)
        with running_server(*arguments) as server, connected(server.port) as client:
            for stream, prompt in prompts.items():
                client.send(ask(prompt, stream, n_predict=100 * stream))
            while seen.count < until:
                seen.take(client.next())
            server.process.kill()
            server.process.wait()
            drain(client, seen)
    rmtree(tmp_path / "disk")
    former, results = left_by_the_only_server(url)
    logs = {one.id: "".join(one.log.pieces) for one in former.generations}
    assert not logs.keys() & results.keys()
    for stream, id_ in seen.ids.items():
        shown = "".join(seen.pieces[stream])
        if stream in seen.done:
            assert results[id_] == "done"
        elif id_ in results:  # it was stored, and that was not told
            assert generation(prompts[stream], 100 * stream).startswith(shown)
        else:
            assert logs[id_].startswith(shown)
            assert generation(prompts[stream], 100 * stream).startswith(logs[id_])
    assert all(seen.ids.get(stream) for stream, pieces in seen.pieces.items() if pieces)
