"""What a continuation needs goes through the journal, wherever it lies there."""

from __future__ import annotations

import trio

from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.records import Ended
from tests.support.storage.journals import FOLDER, reopened, running, segments, tidied, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened


def ask(entry: JournalEntry, number: int, prompt: str | list[int] | None = None) -> None:
    entry.dispatched(f"http://{number}", {"name": f"m{number}"}, prompt)


async def test_what_a_continuation_needs_is_found_again_and_again() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        one, two = journal.start(opened(1)), journal.start(opened(2))
        ask(one, 0, "rendered")
        tokens(one, 2)
        one.append(["x", "y"], [7, None], counts=[3, 1])
        tokens(one, 1)
        ask(one, 1)
        two.append(["z"], [1], counts=[1])
        two.conclude("stop", "END", {"prompt_tokens": 4})
        await journal.written()
        for round_ in range(3):
            first, second = reopened(files)
            assert first.log.counts == [1, 1, 3, 1, 1]
            assert first.log.tokens == 7
            assert first.dispatched is not None
            assert first.dispatched.upstream == "http://1"
            assert first.dispatched.model == {"name": "m1"}
            assert first.dispatched.prompt == "rendered"
            assert first.concluded is None
            assert second.log.counts is None
            assert second.dispatched is None
            assert second.concluded is not None
            assert second.concluded.stop == "END"
            assert second.concluded.usage == {"prompt_tokens": 4}
            assert not second.gap
            if round_ < 2:  # what a start writes anew says the same
                files = SimulatedFiles({n: bytes(data) for n, data in files.files.items()})
                Journal(FOLDER, files).open()
                assert len(segments(files)) == 1


async def test_the_last_dispatch_counts_wherever_it_lies() -> None:
    """Records copied forward come after newer ones; a restart counts on."""
    files = SimulatedFiles()
    async with running(files, segment_bytes=1000) as journal:
        long = journal.start(opened(0))
        for number in range(150):
            if number % 40 == 0:
                ask(long, number // 40, [number])
            log = journal.start(opened(number + 1))
            tokens(log, 10)
            await journal.sync()
            log.end(Ended(state="done"))
            journal.forget(log)
        await journal.written()
        (found,) = reopened(files)
        assert found.dispatched is not None
        assert (found.dispatched.upstream, found.dispatched.prompt) == ("http://3", [120])
    again = Journal(FOLDER, files, interval=0)
    ((_, log),) = again.open()[0]
    async with trio.open_nursery() as nursery:
        await nursery.start(again.run)
        ask(log, 4)
        again.write()
        (found,) = reopened(files)
        assert found.dispatched is not None
        assert (found.dispatched.upstream, found.dispatched.prompt) == ("http://4", [120])
        nursery.cancel_scope.cancel()


async def test_an_end_that_the_upstream_said_of_more_tokens_is_a_gap() -> None:
    files = SimulatedFiles()
    async with running(files, segment_bytes=600) as journal:
        log, other = journal.start(opened(1)), journal.start(opened(2))
        while len(segments(files)) < 3:
            tokens(log, 3)
            tokens(other, 3)
            await journal.sync()
            await tidied(journal)
        log.conclude("stop", None, {})
        await journal.sync()
    whole = {generation.id: generation for generation in reopened(files)}
    assert whole["generation-1"].concluded is not None
    middle = segments(files)[1]
    files.files[middle] = files.files[middle][: framing.HEADER_SIZE]
    found = {generation.id: generation for generation in reopened(files)}
    assert found["generation-1"].concluded is None
    assert found["generation-1"].gap


async def test_a_conclusion_alone_is_made_durable_too() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        before = files.syncs
        log.conclude("stop", None, {})
        journal.write()
        with trio.fail_after(300):
            while files.syncs == before:  # noqa: ASYNC110
                await trio.sleep(0.001)
