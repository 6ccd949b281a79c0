"""SIGHUP: what of the upstreams is kept, what comes in and what goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import parse
from llcuda_net.errors import ConfigError
from llcuda_net.upstream.factory import Upstreams
from llcuda_net.upstream.interface import Properties, Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.lease import Lease, held

A, B = {"url": "http://127.0.0.1:1", "name": "a"}, {"url": "http://127.0.0.1:2", "name": "b"}


def settings(*tables: dict[str, Any], **more: Any) -> Settings:
    return Settings(upstream=parse(list(tables), "upstream"), **more)


async def opened(*tables: dict[str, Any], **more: Any) -> tuple[Upstreams, Pool]:
    upstreams = Upstreams(settings(*tables, **more))
    async with trio.open_nursery() as nursery:
        return upstreams, await upstreams.open(nursery, None)


def busy(pool: Pool) -> None:
    """Something runs on each, so that one that is drained stays for a while."""
    for backend in pool.backends:
        found = backend.table.best(())
        assert found is not None
        Lease(backend, found[0], Requirement(""), on_change=pool.update)


def states(pool: Pool) -> list[tuple[str, str]]:
    return [(backend.name, backend.state) for backend in pool.backends]


async def test_the_same_again_changes_nothing() -> None:
    upstreams, pool = await opened(A, B)
    before = list(pool.backends)
    await upstreams.reload(settings(B, A))
    assert pool.backends == before
    assert states(pool) == [("a", "up"), ("b", "up")]


async def test_one_comes_and_one_goes() -> None:
    upstreams, pool = await opened(A)
    busy(pool)
    await upstreams.reload(settings(B))
    assert states(pool) == [("a", "draining"), ("b", "up")]
    for lease in tuple(pool.backends[0].leases):
        held(lease).release()
    assert states(pool) == [("b", "up")]
    await upstreams.reload(settings(A, B))
    assert states(pool) == [("b", "up"), ("a", "up")]


async def test_one_that_is_drained_may_come_back() -> None:
    upstreams, pool = await opened(A, B)
    busy(pool)
    await upstreams.reload(settings(B))
    await upstreams.reload(settings(A, B))
    assert states(pool) == [("a", "draining"), ("b", "up"), ("a", "up")]


async def test_weight_and_slots_change_in_place() -> None:
    upstreams, pool = await opened({**A, "slots": 2})
    (a,) = pool.backends
    a.upstream._properties = Properties("m", 4, 512, False, "")  # type: ignore[attr-defined]
    await pool.properties(a)
    busy(pool)
    await upstreams.reload(settings({**A, "weight": 3, "slots": 3}))
    assert pool.backends == [a]
    assert (a.spec.weight, a.slots, a.busy, a.state) == (3, 3, 1, "up")
    await upstreams.reload(settings(A))
    assert (a.spec.weight, a.slots) == (1, 4)
    await upstreams.reload(settings({**A, "slots": 1}))
    assert a.slots == 1


@pytest.mark.parametrize("change", [{"model": "m"}, {"roles": ["embeddings"]}])
async def test_anything_else_is_another_upstream(change: dict[str, Any]) -> None:
    upstreams, pool = await opened(A)
    busy(pool)
    await upstreams.reload(settings({**A, **change}))
    assert states(pool) == [("a", "draining"), ("a", "up")]


async def test_another_key_is_another_upstream(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    table = {**A, "api_key_file": str(key)}
    upstreams, pool = await opened(table, B)
    busy(pool)
    await upstreams.reload(settings(table, B))
    assert states(pool) == [("a", "up"), ("b", "up")]
    key.write_text("two")
    await upstreams.reload(settings(table, B))
    assert states(pool) == [("a", "draining"), ("b", "up"), ("a", "up")]
    await upstreams.reload(settings(table, B))
    assert states(pool) == [("a", "draining"), ("b", "up"), ("a", "up")]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([A, {"url": "not a url", "name": "c"}], "is not a URL such as"),
        ([A, {**B, "api_key_file": "/no/such/file"}], "cannot read API key file"),
        ([], "restart"),
    ],
)
async def test_what_is_wrong_changes_nothing(tables: list[dict[str, Any]], words: str) -> None:
    upstreams, pool = await opened({**A, "weight": 2}, B)
    before = list(pool.backends)
    with pytest.raises(ConfigError, match=words):
        await upstreams.reload(settings(*tables))
    assert pool.backends == before
    assert [backend.spec.weight for backend in before] == [2, 1]
    assert states(pool) == [("a", "up"), ("b", "up")]


async def test_the_key_of_all_upstreams_is_not_for_one_with_a_password(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 16)
    one = {"url": "http://me:s3cret@127.0.0.1:3", "name": "c"}
    _, pool = await opened(A, one, upstream_api_key_file=str(key))
    assert [backend.upstream.base_url for backend in pool.backends] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:3",
    ]
