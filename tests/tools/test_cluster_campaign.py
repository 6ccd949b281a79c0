"""The campaign of the cluster: gates between parties, faults, varied answers."""

from __future__ import annotations

import json
import math
import os
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.client.events import Piece, Result
from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.request import check_position
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import TokenLog
from tests.support.campaigns import conducted, job, long_enough, result
from tests.support.storage.postgres import Postgres
from tools import cluster_campaign
from tools.campaign.http_clients import WrongError
from tools.campaign.jobs import Job
from tools.campaign.ledger import Ledger, Reading, differs
from tools.campaign.response_clients import Answer
from tools.cluster import fairness, faults
from tools.cluster.allowed import MEANS, is_allowed
from tools.cluster.batches import LINES, ClusterBatches
from tools.cluster.broken import MODES
from tools.cluster.campaign import Outcome, Plan
from tools.cluster.clients import KINDS, ClusterJobs
from tools.cluster.database import Database
from tools.cluster.faults import CLIENTS, DATABASE, Faults, Timing
from tools.cluster.links import Gate, Link, Network, State
from tools.cluster.member import Member, complaints_of
from tools.cluster.over_http import ClusterResponses
from tools.cluster.trace import named_in, of_database, of_logs
from tools.cluster.who import holder
from tools.crash.batches import Work

# -- whole campaigns ----------------------------------------------------------------------------

ID = "01a22bf2-6d2e-75ce-9be3-bc38c5d6a3a6"
SHORT = ("--servers", "2", "--upstreams", "2", "--clients", "6", "--rate", "60", "--seed", "4")


def test_some_seconds_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = cluster_campaign.plans

    def brief(*arguments: Any) -> list[Plan]:
        timing = Timing(1.0, (1.0, 2.0), most=1)
        return [replace(plan, timing=timing, longest=60) for plan in plans(*arguments)]

    monkeypatch.setattr(cluster_campaign, "plans", brief)
    only = (*SHORT, "--only", "kill,part-servers", "--no-controls", "--no-fairness")

    def run(minutes: str) -> tuple[int, Any]:
        file = tmp_path / "json"
        return conducted(cluster_campaign.main, file, *only, "--minutes", minutes)

    def enough(document: Any) -> bool:
        (found,) = document["campaigns"]
        return bool(found["faults"].get("kill") and found["counts"].get("found in the store"))

    code, document = long_enough(("0.08", "0.3", "1"), run, enough)
    assert code == 0, capsys.readouterr().out
    (found,) = document["campaigns"]
    counts = found["counts"]
    assert found["violations"] == []
    assert found["faults"]["kill"] > 0
    assert counts["stored"] >= counts["unaltered at the end"] > 0
    assert all(counts[name] > 0 for name in ("http jobs", "response jobs", "pieces"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_broken_cluster_is_found_out(mode: str, tmp_path: Path) -> None:
    options = ("--servers", "3", "--upstreams", "3", "--clients", "16", "--seed", "7")
    file = tmp_path / "json"
    code, document = conducted(cluster_campaign.main, file, *options, "--break", mode)
    assert code == 1
    (control,) = document["campaigns"]
    assert control["violations"]


def test_a_violation_is_told_with_what_its_reader_did_and_what_logs_say(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.name_of = {"h:1": "s1-1"}.__getitem__
    job = Job("read", "plain", {}, (), "length", None, 4, 1)
    reading = Reading(ledger, job)
    reading.note(f"{ID} is accepted", "h:1")
    reading.fail("it is wrong")
    (violation,) = ledger.violations
    accepted, noticed = ledger.stories[violation]
    assert accepted.endswith(f" after 0 pieces: {ID} is accepted at s1-1")
    assert noticed.endswith(" noticed")
    assert named_in([violation, accepted]) == [ID]
    entry = {"generation": ID, "pieces": 3, "event": "generation_resumed", "level": "info"}
    for name, second in (("s1-1", 2), ("s2-1", 1)):
        line = json.dumps({**entry, "timestamp": f"2026-01-01T10:00:0{second}.123456Z"})
        other = json.dumps({**entry, "generation": "another"})
        (tmp_path / f"{name}.log").write_text(f"{other}\n{line}\n")
    assert of_logs(ID, [*tmp_path.iterdir()]) == [
        "10:00:01.123 s2-1: generation_resumed pieces 3",
        "10:00:02.123 s1-1: generation_resumed pieces 3",
    ]


def test_what_the_database_knows_of_a_generation_is_told(postgres: Postgres) -> None:
    url = postgres.new_database()
    with closing(PostgresStore(url, write=True)) as store:
        failed = {"code": "upstream_error", "message": "it broke"}
        store.put([result(job(), id=ID, state="failed", error=failed)])
    lives, stored = of_database(ID, url)
    assert lives == "database: lives: "
    assert stored.endswith(f": failed, 4 pieces, spliced at []: {failed}")
    (away,) = of_database(ID, "postgresql://127.0.0.1:9/nothing")
    assert away.startswith("database: ")


def test_a_traceback_in_a_log_is_one_complaint_that_says_how_it_ends() -> None:
    log = """\
{"event": "page"}
  + Exception Group Traceback (most recent call last):
  |   File "app.py", line 1, in run
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    | errors.StorageUnavailable: it is away
    +------------------------------------
{"event": "takeover_crashed"}
{"event": "page"}
"""
    assert complaints_of(log) == [
        "errors.StorageUnavailable: it is away",
        '{"event": "takeover_crashed"}',
    ]


# -- gates --------------------------------------------------------------------------------------


async def _echo(stream: trio.SocketStream) -> None:
    async with stream:
        try:
            while data := await stream.receive_some():
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def echo_behind_a_gate() -> AsyncIterator[tuple[Gate, Link]]:
    """A gate of "there", which echoes, and its link with "here"."""
    network = Network(random.Random(1))
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, _echo, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        gate = Gate(network, "there", "here", listener.socket.getsockname()[1])
        await nursery.start(gate.run)
        yield gate, network.link("here", "there")
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def through(gate: Gate) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream("127.0.0.1", gate.port) as stream:
        yield stream


async def says(stream: trio.SocketStream, data: bytes) -> bytes:
    """What comes back of what is sent; b"" where the connection is lost."""
    got = b""
    try:
        await stream.send_all(data)
        while len(got) < len(data) and (more := await stream.receive_some()):
            got += more
    except trio.BrokenResourceError:
        return b""
    return got


async def test_a_cut_link_resets_and_refuses_until_it_is_open_again() -> None:
    async with echo_behind_a_gate() as (gate, link):
        async with through(gate) as stream:
            assert await says(stream, b"one") == b"one"
            link.set(State.CUT)
            assert await says(stream, b"two") == b""
        async with through(gate) as stream:
            assert await says(stream, b"three") == b""
        link.set(State.OPEN)
        async with through(gate) as stream:
            assert await says(stream, b"four") == b"four"


async def test_what_is_sent_over_a_silent_link_arrives_when_it_is_open() -> None:
    async with echo_behind_a_gate() as (gate, link), through(gate) as stream:
        assert await says(stream, b"one") == b"one"
        link.set(State.SILENT)
        with trio.move_on_after(0.1) as silent:
            await says(stream, b"two")
        assert silent.cancelled_caught
        async with through(gate) as later:  # a new one is silent, too
            with trio.move_on_after(0.1) as silent:
                await says(later, b"three")
            assert silent.cancelled_caught
            link.set(State.OPEN)
            assert await stream.receive_some() == b"two"
            assert await later.receive_some() == b"three"


async def test_what_was_sent_before_the_end_arrives() -> None:
    network = Network(random.Random(1))
    sent = random.Random(1).randbytes(1 << 18)

    async def send(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(sent)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, send, 0, host="127.0.0.1"))
        gate = Gate(network, "there", "here", listener.socket.getsockname()[1])
        await nursery.start(gate.run)
        got = b""
        async with through(gate) as stream:
            while data := await stream.receive_some():
                got += data
        assert got == sent
        nursery.cancel_scope.cancel()


def test_who_holds_a_connection_is_found_by_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gate = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", gate)) as client:
            port = client.getsockname()[1]
            assert holder({1: "init", os.getpid(): "we"}, port, gate) == "we"
            assert holder({os.getppid(): "another"}, port, gate) is None
        assert holder({os.getpid(): "we"}, 1, gate) is None


# -- faults -------------------------------------------------------------------------------------


class Victim(Member):
    """A place without a process."""

    def __init__(self, name: str) -> None:
        self.name, self.trouble = name, ""
        self.suffered: list[str] = []

    async def begin(self) -> None:
        self.suffered.append("begin")

    async def start(self) -> None:
        self.suffered.append("start")

    async def stop(self) -> None:
        self.suffered.append("stop")

    async def kill(self, *, for_good: bool) -> None:
        self.suffered.append("kill" if for_good else "kill and keep")

    def pause(self, paused: bool) -> None:
        self.suffered.append(f"pause {paused}")


class Disk(Database):
    """A database without a process."""

    def __init__(self) -> None:
        self.disk, self.is_up, self.is_full = True, True, False
        self.suffered: list[str] = []

    def __repr__(self) -> str:
        return "<Disk>"

    @property
    def running(self) -> bool:
        return self.is_up

    async def start(self) -> None:
        self.is_up = True

    async def stop(self) -> None:
        self.is_up = False
        self.suffered.append("stop")

    async def kill(self) -> None:
        self.is_up = False
        self.suffered.append("kill")

    def fill(self) -> None:
        self.is_full = True
        self.suffered.append("fill")

    def empty(self) -> None:
        self.is_full = False


async def test_faults_of_all_kinds_come_and_all_is_healed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    victims, disk, network = [Victim(f"s{n}") for n in range(4)], Disk(), Network(random.Random(2))
    rng = random.Random(1)
    found = Faults(victims, ["u1", "u2"], disk, network, rng, Timing(1.0), [*faults.KINDS])
    await found.run(4000)
    assert set(found.counts) == set(faults.KINDS)
    assert min(found.counts.values()) > 3
    assert disk.is_up
    assert not disk.is_full
    assert {*disk.suffered} == {"stop", "kill", "fill"}
    for victim in victims:
        assert victim.trouble == ""
        assert victim.suffered.count("pause True") == victim.suffered.count("pause False") > 0
        assert victim.suffered.count("kill") > 0
        ended = [victim.suffered.count(what) for what in ("kill", "kill and keep", "stop")]
        assert victim.suffered.count("begin") == ended[0] + ended[2]
        assert victim.suffered.count("start") == ended[1]
        for other in ("u1", "u2", CLIENTS, DATABASE):
            link = network.link(victim.name, other)
            assert (link.state, link.delay) == (State.OPEN, 0.0)


async def test_never_are_more_servers_in_trouble_than_may_be(
    autojump_clock: trio.testing.MockClock,
) -> None:
    victims, network = [Victim(f"s{n}") for n in range(4)], Network(random.Random(2))
    timing = Timing(0.1, most=2)
    found = Faults(victims, ["u1"], Disk(), network, random.Random(3), timing, ["stop", "kill"])
    most = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run, 100)
        for _ in range(900):
            await trio.sleep(0.1)
            most = max(most, sum(bool(victim.trouble) for victim in victims))
    assert most == 2


# -- answers that no two runs give alike --------------------------------------------------------

VARIED = Job("read", "varied", {}, (), "length", None, 3, 5, 1, varied=True)


def read(ledger: Ledger, *texts: str, first: int = 0) -> None:
    reading = Reading(ledger, VARIED, first)
    for number, text in enumerate(texts):
        reading.piece(Piece(first + number, text, 7))
    usage = {"completion_tokens": 3, "prompt_tokens": 5}
    reading.end("id", Result("".join(texts), "length", None, usage))


def test_readers_of_a_varied_answer_must_have_got_the_same() -> None:
    ledger = Ledger()
    read(ledger, " a", " b", " c")
    read(ledger, " b", " c", first=1)
    assert ledger.violations == []
    read(ledger, " x", " c", first=1)
    assert len(ledger.violations) == 1
    assert "' b' for one reader, and ' x' for another" in ledger.violations[0]


def test_a_varied_answer_must_be_stored_as_it_was_read() -> None:
    ledger = Ledger()
    read(ledger, " a", " b", " c")
    receipt = ledger.new["id"]
    stored: dict[str, Any] = {"usage": {"completion_tokens": 3, "prompt_tokens": 5}}
    alike = result(VARIED, log=TokenLog([" a", " b", " c"], [1, 2, 3]), **stored)
    assert differs(receipt, alike) is None
    other = result(VARIED, log=TokenLog([" a", " x", " c"], [1, 2, 3]), **stored)
    assert differs(receipt, other) == "its piece 1 is ' x', and a reader had ' b'"
    less = result(VARIED, log=TokenLog([" a", " b"], [1, 2]), **stored)
    assert "piece 2 is None" in str(differs(receipt, less))


def test_jobs_of_every_kind_level_and_flavour_are_drawn() -> None:
    jobs = ClusterJobs(random.Random(1), (None, "disk"), 60)
    drawn = [jobs.draw(chat=bool(n % 2)) for n in range(400)]
    assert {job.kind for job in drawn} == set(KINDS)
    assert {job.ask["level"] for job in drawn} == {None, "disk"}
    assert {job.varied for job in drawn} == {True, False}
    assert all(job.ask["on_disconnect"] == "continue" for job in drawn)


# -- batches ------------------------------------------------------------------------------------


class Replies(ClusterBatches):
    """Clients of a server that answers with what a test has for it."""

    def __init__(self, lines: dict[str, list[dict[str, Any]]]) -> None:
        self._rng, self._ledger = random.Random(1), Ledger()
        self.lines, self.asked = lines, list[str]()
        self.begin()

    async def _insist(self, method: str, path: str, *rest: Any, lines: bool = False) -> Any:
        self.asked.append(path)
        if lines:
            return "\n".join(json.dumps(one) for one in self.lines[path.split("/")[3]])
        over = self.asked.count(path) > 1 and method == "GET"
        files = {f"{name}_file_id": name if name in self.lines else None for name in OUTPUTS}
        return {"id": "b", "status": "completed" if over else "in_progress", **files}


OUTPUTS = ("output", "error")


def line(number: int, text: str | None, code: str = "") -> dict[str, Any]:
    message = {"message": {"content": text}, "text": text}
    body = {"choices": [message]} if text is not None else {"error": {"code": code, "message": ""}}
    return {"custom_id": f"{number}", "response": {"body": body}, "error": None}


async def outcome_of(change: Callable[[list[dict[str, Any]]], Any], **more: Any) -> Replies:
    """What clients say of a batch whose output somebody has changed."""
    work = Work.draw(1, LINES, random.Random(2))
    lines = [line(number, text) for number, text in enumerate(work.texts)]
    change(lines)
    replies = Replies({"output": lines, **more})
    await replies._do(work)
    return replies


async def test_each_line_of_a_batch_is_compared(autojump_clock: object) -> None:
    well = await outcome_of(lambda lines: lines.reverse())
    assert well.keys == {f"b:{number}" for number in range(LINES)}
    assert (well.failed, well._ledger.counts["batch lines"]) == (set(), LINES)
    with pytest.raises(WrongError, match="line 3 says 'x'"):
        await outcome_of(lambda lines: lines.insert(3, lines.pop(3) | line(3, "x")))
    with pytest.raises(WrongError, match="its output has the lines"):
        await outcome_of(lambda lines: lines.append(lines[0]))
    with pytest.raises(WrongError, match="its output has the lines"):
        await outcome_of(lambda lines: lines.pop())
    with pytest.raises(WrongError, match="internal"):
        await outcome_of(lambda lines: lines.pop(4), error=[line(4, None, "internal")])
    lost = [line(4, None, "upstream_unavailable")]
    excused = await outcome_of(lambda lines: lines.pop(4), error=lost)
    assert excused.failed == {"b:4"}


class TwoResponses(ClusterResponses):
    """A key that gave two responses, which are now as servers say."""

    def __init__(self, responses: dict[str, dict[str, Any]]) -> None:
        super().__init__("x:1", ClusterJobs(random.Random(1), [None], 9), Ledger(), *_PLAIN)
        self.ended = set()
        self._responses, self._ids = responses, list(responses)

    async def _named(self, answer: Answer) -> str:
        return self._ids.pop(0)

    @asynccontextmanager
    async def _exchange(self, method: str, path: str, *_: Any, **__: Any) -> AsyncIterator[Any]:
        self.body = json.dumps(self._responses[path.rpartition("/")[2]]).encode()
        self.status = 200
        yield self

    async def read(self) -> bytes:
        return self.body


_PLAIN: Any = (random.Random(1), 9.0, lambda: True)


@pytest.mark.parametrize(
    ("first", "excused"),
    [("the upstream is lost", True), ("a bug: KeyError", False), (None, False)],
)
async def test_a_key_gives_another_response_where_the_first_one_has_failed(
    first: str | None, excused: bool
) -> None:
    error = {"code": "server_error", "message": first}
    failed = {"status": "failed", "error": error} if first else {"status": "completed"}
    clients = TwoResponses({"resp_a": failed, "resp_b": {"status": "incomplete"}})
    wanted = job("twice")
    answer = Answer(wanted, Reading(clients._ledger, wanted), "k")
    if not excused:
        with pytest.raises(WrongError):
            await clients._begin(answer)
        return
    await clients._begin(answer)
    assert (answer.id, clients.ended) == ("resp_b", {"a"})


# -- the outcome --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "level", "allowed"),
    [
        ("interrupted", None, False),
        ("interrupted", "disk", True),
        ("unknown_generation", None, False),
        ("ahead", "disk", True),
        ("upstream_unavailable", None, True),
        ("internal", "disk", False),
    ],
)
def test_which_errors_are_allowed(code: str, level: str | None, allowed: bool) -> None:
    job = Job("read", "plain", {"level": level}, (), "length", None, 1, 1)
    assert is_allowed(code, job) is allowed


@pytest.mark.parametrize("epoch", [0, None])
async def test_a_failed_response_says_what_another_protocol_has_a_code_for(
    epoch: int | None,
) -> None:
    """Its API has one code for all, so the message is looked at."""
    found = Generation("x", None, {}, 60.0)
    found.splice()
    found.ended = True
    with pytest.raises(RequestError) as refusal:
        check_position(found, 5, epoch)
    codes = [code for text, code in MEANS.items() if text in refusal.value.message]
    assert codes == [refusal.value.code]


def _plans(*arguments: str) -> Iterator[Plan]:
    yield from cluster_campaign.plans(cluster_campaign.parser().parse_args(arguments), 1)


def test_controls_follow_the_campaign(tmp_path: Path) -> None:
    first, *controls = _plans("--minutes", "10", "--logs", str(tmp_path))
    assert (first.seconds, first.broken, first.clustered) == (600, None, True)
    assert [plan.broken for plan in controls] == list(MODES)
    assert [plan.broken for plan in _plans("--break", "no-fencing")] == ["no-fencing"]
    assert [plan.broken for plan in _plans("--no-controls")] == [None]


@pytest.mark.parametrize(("slow", "even"), [(0.0, True), (20.0, True), (math.inf, False)])
async def test_a_busy_machine_has_time_to_give_two_users_the_same(
    slow: float, even: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    began = trio.current_time()

    async def asks(address: str, user: str, got: Counter[str], name: float) -> None:
        while True:
            await trio.sleep(1.0)
            shared = user == fairness.MODEST and trio.current_time() - began >= slow
            got[user] += 3 if shared else 1

    monkeypatch.setattr(fairness, "_ask", asks)
    found = await fairness.measure(["x:1", "x:2"], 4, random.Random(1))
    assert (fairness.unfair(found) is None) is even


def test_too_little_and_too_many_errors_are_violations() -> None:
    found = Outcome(Plan(1, 1.0))
    assert found.violations == ["no answer came to its end"]
    found.ledger.counts.update({"acknowledged": 100})
    assert found.violations == []
    found.ledger.counts.update({"errors": 30})
    assert found.violations == ["30 readings ended with an error"]
