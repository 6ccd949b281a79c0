"""Real servers on one PostgreSQL, each with a part of the vectors: one is killed, one comes."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from llcuda_net.analysis.vector_index import VectorIndex
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import TokenLog
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.steady import endless_upstream
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result
from tools.synthetic.pages import embedding

#: Results, and how many of them have the same text as another one: these are equally near.
COUNT, ALIKE = 240, 8
#: Kernels that are not cached are compiled first.
COMPILING = 300.0
QUERY = "what does a slot cost?"


def fill(url: str) -> None:
    """Store results, half of which are ann's."""
    store = PostgresStore(url, write=True)
    store.put(
        [
            result(
                n,
                request={"prompt": f"question {n % (COUNT // ALIKE)}"},
                log=TokenLog([f"answer {n % (COUNT // ALIKE)}"], [1]),
                owner="ann" if n % 2 else "bob",
            )
            for n in range(1, COUNT + 1)
        ]
    )
    store.close()


def by_one(url: str, k: int, owner: str | None) -> list[str]:
    """What one server with all vectors finds."""
    store = PostgresStore(url, write=False)
    (space,) = store.analyses.spaces()
    index = VectorIndex.load(store.analyses, space)
    assert index.count(None) == COUNT
    found = index.search(embedding(QUERY), k, store.analyses, owner)
    store.close()
    return [summary.id for summary, _, _ in found]


def get(at: RunningServer, path: str, token: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{at.address}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=COMPILING) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def search(at: RunningServer, token: str, k: int = 50) -> tuple[list[str], int]:
    """Ids, nearest first, and how many were searched."""
    query = urllib.parse.urlencode({"semantic": QUERY, "limit": k})
    found = get(at, f"/v1/generations?{query}", token)
    return [one["id"] for one in found["data"]], found["search"]["searched"]


def indexed(at: RunningServer) -> int:
    """How many vectors a server has in memory."""
    count: int = get(at, "/v1/status", "root-token-16-chars")["analysis"]["indexed"]
    return count


@contextmanager
def started(url: str, folder: Path, name: str, upstreams: list[str]) -> Iterator[RunningServer]:
    tokens = folder / "tokens"
    tokens.write_text("ann-token-of-16-chars name=ann\nroot-token-16-chars name=root role=admin\n")
    tokens.chmod(0o600)
    with running_server(
        *("--store", url, "--name", name, "--data-dir", str(folder / name), "--analysis"),
        *("--auth-token-file", str(tokens)),
        *(option for one in upstreams for option in ("--upstream", one)),
    ) as running:
        yield running


def test_each_has_a_part_and_all_find_the_same(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    with ExitStack() as stack:
        upstreams = [stack.enter_context(endless_upstream()) for _ in range(2)]

        def start(name: str) -> RunningServer:
            return stack.enter_context(started(url, tmp_path, name, upstreams))

        fill(url)
        first = start("a")
        wait_until(lambda: indexed(first) == COUNT, "all is embedded", COMPILING)
        ann, root = by_one(url, 50, "ann"), by_one(url, 50, None)
        assert len(ann) == len(root) == 50

        def check(*servers: RunningServer) -> None:
            for one in servers:
                assert search(one, "ann-token-of-16-chars") == (ann, COUNT // 2)
                assert search(one, "root-token-16-chars") == (root, COUNT)

        def spread(*servers: RunningServer) -> Callable[[], bool]:
            return lambda: (
                sum(map(indexed, servers)) == COUNT
                and all(indexed(one) < 0.8 * COUNT for one in servers)
            )

        check(first)
        second, third = start("b"), start("c")
        check(second, third, first)
        wait_until(spread(first, second, third), "each has a part", COMPILING)
        check(first, second, third)
        second.process.kill()
        second.process.wait(PATIENCE)
        # What it held is nowhere in memory now.
        check(first, third)
        wait_until(spread(first, third), "the others have its part", COMPILING)
        check(first, third)
        fourth = start("d")
        check(fourth, first, third)
        wait_until(spread(first, third, fourth), "each has a part again", COMPILING)
        # A result that is deleted at one server is found at none.
        store = PostgresStore(url, write=True)
        assert store.delete(root[0])
        store.close()
        for one in (first, third, fourth):
            found, _ = search(one, "root-token-16-chars", 49)
            assert found == root[1:]
