"""The analyst: when it works, what it leaves in the store, and what it does when it cannot.

On the real clock: threads do the work, and virtual time does not wait for those.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from llcuda_net.analysis import analyzer, vector_index
from llcuda_net.analysis.embedding_backend import EmbeddingBackend
from llcuda_net.analysis.warmup import compile_kernels
from llcuda_net.config.users import ANONYMOUS
from llcuda_net.errors import (
    RequestError,
    Unsupported,
    UpstreamBusy,
    UpstreamError,
    UpstreamUnavailable,
)
from llcuda_net.storage.records import TokenLog, packed
from llcuda_net.storage.results.interface import Document, Retention
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.upstream.interface import EmbedTexts, Properties
from llcuda_protocol import (
    Done,
    Error,
    ErrorCode,
    Search,
    Tokens,
)
from tests.support.analysis.analysts import Embedding, analysing, caught_up, indexed, put
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import (
    ask,
    ready,
    serving,
    status,
)
from tests.support.storage.records import SECOND, START, result


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyzer, "SETTLE", 0.0)
    monkeypatch.setattr(analyzer, "RETRY", 0.0)


async def test_a_result_is_analysed_and_found(tmp_path: Path) -> None:
    async with analysing(tmp_path, Embedding()) as (analyst, listener):
        peer = await ready(listener)
        for stream, text in enumerate(("a slot is free", "credit and a stream", "the journal"), 1):
            await peer.send(ask(text, stream))
            await peer.until(Done, stream)
        await caught_up(analyst)
        found = await analyst.search("stream credit", 2, ANONYMOUS)
        assert found.hits[0][0].preview == "credit and a stream"
        assert found.hits[0][1] == "credit and a stream"
        assert 0.9 < found.hits[0][2] <= 1
        assert found.hits[0][2] > found.hits[1][2]
        assert (found.searched, found.backlog, len(found.hits)) == (3, 0, 2)
        report = (await status(listener))["analysis"]
        assert report == {"backlog": 0, "embeddings": True, "indexed": 3}


async def test_a_backlog_survives_a_restart_and_nothing_is_done_twice(tmp_path: Path) -> None:
    put(tmp_path, *(f"text {n} slot" for n in range(40)))
    upstream = Embedding()
    upstream.hold = trio.Event()
    async with analysing(tmp_path, upstream):
        with trio.fail_after(300):
            await upstream.waiting.wait()
    assert SqliteStore(tmp_path).analyses.spaces() == []
    upstream = Embedding()
    async with analysing(tmp_path, upstream) as (analyst, _):
        await caught_up(analyst)
        await indexed(analyst, 40)
    assert len(upstream.embedded) > 40
    assert len(set(upstream.embedded)) == 42  # texts, their question, and one more
    put(tmp_path, "another stream", first=100)
    upstream = Embedding()
    async with analysing(tmp_path, upstream) as (analyst, _):
        await caught_up(analyst)
        assert upstream.embedded == ["tell me", "another stream"]
        assert (await analyst.search("another stream", 1, ANONYMOUS)).hits[0][1] == "another stream"


async def test_whoever_comes_cuts_it_off_and_runs_at_once(tmp_path: Path) -> None:
    put(tmp_path, "one slot", "two streams")
    upstream = Embedding(slots=1)
    upstream.hold = trio.Event()
    async with analysing(tmp_path, upstream) as (analyst, listener):
        with trio.fail_after(300):
            await upstream.waiting.wait()
            peer = await ready(listener)
            await peer.send(ask("go on"))
            pieces, _ = await peer.until(Done)
            assert pieces == ["go", " on"]
            assert upstream.cut_off >= 1
            upstream.hold.set()
        await caught_up(analyst)
        await indexed(analyst, 3)


async def test_whoever_asks_again_and_again_meets_it_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which pause it waits for, and how much it then does, as time goes by."""
    put(tmp_path, *(f"text {n} slot" for n in range(40)))
    monkeypatch.setattr(analyzer, "SETTLE", 1e9)
    monkeypatch.setattr(analyzer, "PATIENCE", 1e9)
    monkeypatch.setattr(analyzer, "SHORTEST", 0.0)
    upstream = Embedding()
    async with analysing(tmp_path, upstream) as (analyst, listener):
        assert listener.server.scheduler.idle
        analyst._moved = trio.current_time()
        with trio.move_on_after(0.2):
            await analyst._turn()
        assert upstream.embedded == []  # 1e9 s without a request have not passed
        monkeypatch.setattr(analyzer, "PATIENCE", 0.0)
        while not upstream.embedded:
            assert await analyst._turn()
        count = len(upstream.embedded)
        assert count < 40  # a step, and then patience begins anew
        monkeypatch.setattr(analyzer, "PATIENCE", 1e9)
        with trio.move_on_after(0.2):
            await analyst._turn()
        assert len(upstream.embedded) == count


async def test_nothing_is_analysed_while_a_generation_runs(tmp_path: Path) -> None:
    upstream = Embedding(slots=4)
    upstream.paused = True
    async with analysing(tmp_path, upstream) as (analyst, listener):
        peer = await ready(listener)
        await peer.send(ask("a long one"))
        upstream.release(1)
        await peer.until(Tokens)
        put(tmp_path, "from elsewhere")
        analyst.wake()
        with trio.fail_after(300):
            while not listener.server.scheduler._idle:  # noqa: ASYNC110
                await trio.sleep(0.001)
        assert upstream.embedded == []
        upstream.release(9)
        await peer.until(Done)
        await caught_up(analyst)
        assert "from elsewhere" in upstream.embedded


async def test_an_upstream_without_embeddings_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "one")
    upstream = Embedding()
    upstream.error = Unsupported("start it with --embeddings")
    async with analysing(tmp_path, upstream) as (analyst, _):
        await caught_up(analyst)
        assert (await analyst.report()) == {"backlog": 0, "embeddings": False, "indexed": 0}
        with pytest.raises(RequestError, match="--embeddings"):
            await analyst.search("x", 3, ANONYMOUS)
        upstream.error = None
        upstream.properties = Properties("fake", 4, 512, True, "test")  # it was started again
        assert (await analyst.report())["backlog"] == 1
        await caught_up(analyst)
        await indexed(analyst, 1)


async def test_a_result_that_cannot_be_embedded_keeps_no_other_waiting(tmp_path: Path) -> None:
    put(tmp_path, "one slot", "poison", "two slots")
    upstream = Embedding()
    upstream.bad = "poison"
    upstream.error = UpstreamError("it broke", retry=True)
    async with analysing(tmp_path, upstream) as (analyst, _):
        await caught_up(analyst)
        found = await analyst.search("slot", 9, ANONYMOUS)
        assert sorted(hit[1] for hit in found.hits) == ["one slot", "two slots"]


async def test_an_upstream_that_is_not_ready_is_waited_for_and_no_result_given_up(
    tmp_path: Path,
) -> None:
    put(tmp_path, "one slot", "two slots")

    class Busy(Embedding):
        refusals = 12

        async def embed(self, texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
            if texts != ["dimension"] and self.refusals:
                self.refusals -= 1
                raise UpstreamBusy("the upstream takes no more", retry=True, retry_after=0.0)
            return await super().embed(texts)

    async with analysing(tmp_path, Busy()) as (analyst, _):
        with structlog.testing.capture_logs() as logs:
            await caught_up(analyst)
        assert [line["event"] for line in logs].count("analysis_waits") == 1
        found = await analyst.search("slot", 9, ANONYMOUS)
        assert sorted(hit[1] for hit in found.hits) == ["one slot", "two slots"]


async def test_another_model_has_a_space_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "one slot", "two streams")
    async with analysing(tmp_path, Embedding()) as (analyst, _):
        await caught_up(analyst)
    other = Embedding()
    other.properties = Properties("other", 4, 512, True, "test")
    async with analysing(tmp_path, other) as (analyst, _):
        await caught_up(analyst)
        assert (await analyst.search("stream", 1, ANONYMOUS)).hits[0][1] == "two streams"
    assert [s.model["name"] for s in SqliteStore(tmp_path).analyses.spaces()] == ["other", "fake"]
    # Back to the first: there is nothing left to do.
    upstream = Embedding()
    async with analysing(tmp_path, upstream) as (analyst, _):
        await caught_up(analyst)
        assert upstream.embedded == []


async def test_another_dimension_begins_anew(tmp_path: Path) -> None:
    put(tmp_path, "one slot")
    upstream = Embedding()
    async with analysing(tmp_path, upstream) as (analyst, _):
        await caught_up(analyst)
        upstream.dim = 9
        assert (await analyst.search("slot", 1, ANONYMOUS)).hits == []
        put(tmp_path, "two slots", first=50)
        await caught_up(analyst)
        assert len((await analyst.search("slot", 5, ANONYMOUS)).hits) == 2
    assert [s.dim for s in SqliteStore(tmp_path).analyses.spaces()] == [9, 6]


async def test_what_another_server_has_analysed_is_found(tmp_path: Path) -> None:
    put(tmp_path, "slot one")
    async with analysing(tmp_path, Embedding()) as (analyst, _):
        await caught_up(analyst)
        assert (await analyst.search("slot", 5, ANONYMOUS)).searched == 1
        put(tmp_path, "slot two", first=50)
        other = SqliteStore(tmp_path, write=True)
        (space,) = other.analyses.spaces()
        ((one,),) = other.analyses.embeddings(space.id)
        other.analyses.embed(space.id, 2, [(2, one.scale, one.codes)])
        other.close()
        found = await analyst.search("slot", 5, ANONYMOUS)
        assert found.searched == 2
        assert sorted(hit[1] for hit in found.hits) == ["slot one", "slot two"]


async def test_what_was_pruned_is_not_found(tmp_path: Path) -> None:
    put(tmp_path, "slot one", "slot two", "slot three", "slot four")
    async with analysing(tmp_path, Embedding()) as (analyst, _):
        await caught_up(analyst)
        store = SqliteStore(tmp_path, write=True)
        list(store.prune(Retention(before=START + 3 * SECOND)))
        store.close()
        found = await analyst.search("slot", 2, ANONYMOUS)
        assert sorted(hit[1] for hit in found.hits) == ["slot four", "slot three"]


async def test_figures_are_computed_where_there_are_log_probabilities(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    half = math.log(0.5)
    tokens = [packed([[1, b"a", half, [[1, b"a", half], [2, b"b", half]]]])]
    store.put([result(1, log=TokenLog(["a"], [1], tokens)), result(2)])
    async with analysing(tmp_path, Embedding()) as (analyst, _):
        await caught_up(analyst)
    figures = store.analyses.certainty("result-000001")
    assert figures is not None
    assert figures.mean_surprisal == pytest.approx(math.log(2))
    assert figures.perplexity == pytest.approx(2)
    assert figures.mean_entropy == pytest.approx(math.log(2))
    assert store.analyses.certainty("result-000002") is None


async def test_results_without_any_text_are_passed_over(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1, tokens=0, request={"prompt": [1, 2, 3]})])
    store.close()
    put(tmp_path, "a slot", first=2)
    async with analysing(tmp_path, Embedding()) as (analyst, _):
        await caught_up(analyst)
        assert len((await analyst.search("slot", 5, ANONYMOUS)).hits) == 1


async def test_nothing_of_it_runs_where_it_is_not_wanted(tmp_path: Path) -> None:
    async with keeping(tmp_path, Embedding(), analysis=False) as (_, listener):
        assert listener.server.analyst is None
        assert "analysis" not in await status(listener)
        with pytest.raises(RequestError, match="--no-analysis") as caught:
            await listener.server.queries.search("x", 3, ANONYMOUS)
        assert caught.value.code == ErrorCode.UNSUPPORTED


async def test_nothing_of_it_runs_where_nothing_is_stored() -> None:
    async with serving(Embedding(), analysis=True) as (server, listener):
        assert server.analyst is None
        peer = await ready(listener)
        await peer.send(Search(1, "slot"))
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.UNSUPPORTED


async def test_the_kernels_are_compiled_in_a_process_of_their_own() -> None:
    with structlog.testing.capture_logs() as logs:
        await compile_kernels()
    assert logs == []


async def test_a_bug_is_logged_and_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a slot")
    calls: list[int] = []

    def broken(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("no")
        return vector_index.combine(*arguments)

    monkeypatch.setattr(analyzer, "combine", broken)
    # Captured: to format a traceback with its local variables takes seconds.
    with structlog.testing.capture_logs() as logs:
        async with analysing(tmp_path, Embedding()) as (analyst, _):
            await caught_up(analyst)
    assert len(calls) == 3
    assert [one["event"] for one in logs].count("analysis_failed") == 2


@pytest.mark.parametrize("ending", ["works", "not there", "dies"])
async def test_a_backlog_is_embedded_beside_the_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """In few calls; where there is nothing beside it, or that has died, by the upstream itself."""
    monkeypatch.setattr(analyzer, "MANY", 30)
    put(tmp_path, *(f"text {n} slot" for n in range(40)))
    upstream, beside = Embedding(), Embedding()
    if ending == "dies":
        beside.error = UpstreamUnavailable("gone")
    starts = 0
    ended = trio.Event()

    @asynccontextmanager
    async def spare() -> AsyncIterator[EmbedTexts | None]:
        nonlocal starts
        starts += 1
        try:
            yield None if ending == "not there" else beside.embed
        finally:
            ended.set()

    monkeypatch.setattr(EmbeddingBackend, "spare", lambda _self: spare())
    async with analysing(tmp_path, upstream) as (analyst, _):
        await caught_up(analyst)
        await indexed(analyst, 40)
        by = beside if ending == "works" else upstream
        other = upstream if ending == "works" else beside
        assert {f"text {n} slot" for n in range(40)} <= set(by.embedded)
        assert not any(text.startswith("text") for text in other.embedded)
        with trio.fail_after(300):
            await ended.wait()
        assert starts == 1
        put(tmp_path, "a few more", first=100)
        await caught_up(analyst)
        assert upstream.embedded[-1] == "a few more"
        assert starts == 1


def test_a_step_is_short() -> None:
    def long(count: int, size: int) -> list[Document]:
        return [Document(n, "", "", "x" * size) for n in range(count)]

    assert len(analyzer._few(long(40, 400))) == 40
    assert len(analyzer._few(long(40, 4_096))) == 4
    assert len(analyzer._few(long(40, 1 << 20))) == 1
    assert analyzer._few([]) == []
