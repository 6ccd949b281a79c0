"""The way of a request to its upstream, and of its first token back: counted, not timed.

As in test_token_path.py: a whole server over sockets on loopback, at the level disk. Counted are
the turns that tasks of the server get, the calls of our Python functions, and what goes to threads.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.upstream.llama import streams
from llcuda_net.upstream.llama.token_stream import send_now
from llcuda_protocol import Generate
from tests.support.server.counting import OURS, Calls, shown
from tests.support.server.scripted_server import PATIENCE, begin, running, settled

#: Turns of the session, which reads the request, and of the generation's own task.
MOST_TURNS = 2
#: Most calls of our functions from the request's bytes to the upstream's; with 40 that run.
MOST_CALLS, MOST_CALLS_BESIDE_40 = 520, 540


class Way(trio.abc.Instrument):
    """Counts from the moment at which a request is sent until its upstream has it.

    Only in tasks that are on its way: those of sessions, and those that have begun since. What
    others do meanwhile depends on how busy the machine is.
    """

    def __init__(self) -> None:
        self.turns: Counter[str] = Counter()
        self.calls: Calls = Counter()
        self.threads = 0
        self._counting = False
        self._begun: set[trio.lowlevel.Task] = set()
        self._on_the_way = False

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if self._counting:
            self._begun.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        ours = self._counting and task.name.startswith("llcuda_net.")
        self._on_the_way = ours and (task in self._begun or ".listener." in task.name)
        self.turns[task.name] += self._on_the_way

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._on_the_way = False

    def _profile(self, frame: FrameType, what: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if self._on_the_way and what == "call" and path.startswith(OURS):
            self.calls[path, frame.f_code.co_qualname] += 1

    def begin(self) -> None:
        self._counting = True
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self._profile)

    def end(self) -> None:
        if self._counting:
            sys.setprofile(None)
            self._counting = False
            trio.lowlevel.remove_instrument(self)


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Way:
    found = Way()
    in_thread = trio.to_thread.run_sync

    async def sent(*args: Any) -> None:
        await send_now(*args)
        found.end()

    async def run_sync(*args: Any, **options: Any) -> Any:
        found.threads += found._counting
        return await in_thread(*args, **options)

    monkeypatch.setattr(streams, "send_now", sent)  # where it is looked up
    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return found


@pytest.mark.parametrize("what", ["prompt", "messages"])
@pytest.mark.parametrize("beside", [0, 40])
async def test_the_upstream_has_a_request_in_its_task_s_first_turn(
    what: str, beside: int, way: Way, tmp_path: Path, still_clock: MockClock
) -> None:
    text = {"prompt": "hello"}
    asked = text if what == "prompt" else {"messages": [{"role": "user", "content": "hello"}]}
    async with running(tmp_path, slots=64) as (script, connect, storage):
        reader = await connect()
        for number in range(1, beside + 3):  # what happens once is over then
            await begin(reader, script, number)
        await settled(storage)
        script.more = trio.Event()
        way.begin()
        try:
            await reader.send(Generate(99, credit=1 << 20, params={"n_predict": 500}, **asked))
            with trio.fail_after(PATIENCE):
                await script.more.wait()
        finally:
            way.end()
        assert sum(way.turns.values()) <= MOST_TURNS, way.turns
        assert way.threads == 0
        assert way.calls
        most = MOST_CALLS_BESIDE_40 if beside else MOST_CALLS
        assert sum(way.calls.values()) <= most, shown(way.calls)
