"""The chaos campaign: some seconds of it come out well, broken servers do not, nothing is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import (
    ConnectError,
    InternalError,
    LlcudaError,
    UnknownGeneration,
    UpstreamError,
    UpstreamUnavailable,
)
from tests.support.processes import PATIENCE, children, environment, wait_until
from tests.tools.test_crash_campaign import job
from tools import chaos_campaign
from tools.chaos import memory, quiet
from tools.chaos.broken import MODES
from tools.chaos.campaign import Outcome, Plan
from tools.chaos.clients import KINDS, SETTLED, ChaosClients
from tools.chaos.troubles import FAULTS, Manners, Troubles
from tools.chaos.upstreams import REAL, SYNTHETIC, Upstream, running
from tools.crash.clients import Options
from tools.crash.jobs import SyntheticJobs
from tools.crash.ledger import Ledger, Reading
from tools.synthetic.faults import KINDS as FAULT_KINDS
from tools.synthetic.faults import Fault

SCRIPT = [sys.executable, chaos_campaign.__file__]


# -- whole campaigns ----------------------------------------------------------------------------


def test_some_seconds_of_chaos_and_broken_servers_are_found_out(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    options = ("--minutes", "0.2", "--real-engine", "4", "--peace", "1.5", "--seed", "3")
    ended = subprocess.run(
        [*SCRIPT, *options, "--clients", "48", "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("violations        none") == 2
    synthetic, real, *controls = json.loads(file.read_text())["campaigns"]
    counts = synthetic["counts"]
    assert (synthetic["upstream"], real["upstream"]) == ("synthetic", "llama.cpp")
    assert (synthetic["violations"], real["violations"]) == ([], [])
    assert sum(synthetic["troubles"].values()) > 3
    assert counts["splices"] > 0
    assert counts["acknowledged"] > 0
    assert counts["unaltered at the end"] == counts["found in the store"]
    assert all(counts[f"{kind} jobs"] for kind in KINDS)
    assert real["counts"]["acknowledged"] > 0
    for control in controls:
        assert control["violations"]
        assert f"control {control['broken']}: noticed after " in ended.stdout
    assert [control["broken"] for control in controls] == list(MODES)


def test_an_interrupted_campaign_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*SCRIPT, "--minutes", "60", "--peace", "0.5"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
    ) as process:
        wait_until(lambda: any(tmp_path.glob("*/data/results.db")), "the server runs")
        started = children(process.pid)
        assert len(started) >= 2  # the server, and upstreams that are not just dead
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 130
    assert said == "interrupted\n"
    assert list(tmp_path.iterdir()) == []
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--peace", "x"], ["--break", "nothing"]])
def test_a_wrong_option_is_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        chaos_campaign.main(wrong)
    assert ended.value.code == 2
    with pytest.raises(SystemExit):
        chaos_campaign.main(["--help"])
    assert "example:" in capsys.readouterr().out


def test_a_fifth_of_the_time_is_for_real_engines() -> None:
    args = chaos_campaign.parser().parse_args(["--minutes", "10"])
    first, second, *controls = chaos_campaign.plans(args, 1)
    assert (first.seconds, first.real) == (480, False)
    assert (second.seconds, second.real) == (120, True)
    assert [plan.broken for plan in controls] == list(MODES)
    args = chaos_campaign.parser().parse_args(["--minutes", "1", "--real-engine", "0"])
    assert [plan.real for plan in chaos_campaign.plans(args, 1)] == [False] * (1 + len(MODES))


# -- upstreams ----------------------------------------------------------------------------------


async def test_an_upstream_is_harmed_and_healed(tmp_path: Path) -> None:
    options = ["--rate", "0", "--exit-on-eof"]
    async with running(1, SYNTHETIC, options, tmp_path) as (upstream,):
        assert await upstream.busy() == 0
        for kind in ("kill", "stop", "errors"):
            await upstream.harm(kind, "http:503")
            assert upstream.trouble == kind
            assert await answers(upstream) is False
            await upstream.heal()
            assert (upstream.trouble, await answers(upstream)) == ("", True)
        await upstream.harm("stop", "")
        pid = upstream.pid
    with pytest.raises(ProcessLookupError):  # though it was stopped
        os.kill(pid, 0)


async def test_a_real_engine_listens_on_its_port(tmp_path: Path) -> None:
    async with running(1, REAL, ["--slots", "2"], tmp_path) as (upstream,):
        assert len(await upstream.slots()) == 2
        await upstream.harm("kill", "")
        await upstream.heal()
        assert await upstream.busy() == 0
        pid = upstream.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def answers(upstream: Upstream) -> bool:
    """Whether a completion is answered; one that is stopped says nothing."""
    body = b'{"prompt": "x", "n_predict": 1}'
    head = b"POST /completion HTTP/1.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    with trio.move_on_after(1):
        try:
            async with await trio.open_tcp_stream("127.0.0.1", upstream.port) as stream:
                await stream.send_all(head % len(body) + body)
                return (await stream.receive_some(12)).endswith(b" 200")
        except OSError:
            return False
    return False


# -- troubles -----------------------------------------------------------------------------------


class Victim(Upstream):
    """An upstream without a process."""

    def __init__(self, name: str, synthetic: bool = True) -> None:
        self.name, self.synthetic = name, synthetic
        self.trouble, self.well_since = "", 0.0
        self.suffered: list[str] = []

    async def harm(self, kind: str, how: str) -> None:
        assert not self.trouble
        self.trouble = kind
        self.suffered.append(kind)
        await trio.sleep(0.1)

    async def heal(self) -> None:
        await trio.sleep(0.1)
        assert self.trouble
        self.trouble = ""
        self.well_since = trio.current_time()


@pytest.mark.parametrize("synthetic", [True, False])
async def test_troubles_meet_everyone_and_are_healed(
    synthetic: bool, autojump_clock: trio.testing.MockClock
) -> None:
    victims = [Victim(f"{n}", synthetic) for n in range(3)]
    troubles = Troubles(victims, random.Random(1), Manners(2.0, (0.5, 3.0)))
    began = trio.current_time()
    await troubles.run(300)
    assert 300 <= trio.current_time() - began < 301
    kinds = {"kill", "stop", "errors"} if synthetic else {"kill", "stop"}
    assert set(troubles.counts) == kinds
    assert min(troubles.counts.values()) > 20
    for victim in victims:
        assert victim.trouble == ""
        assert set(victim.suffered) == kinds
    assert sum(troubles.counts.values()) == sum(len(victim.suffered) for victim in victims)
    assert sum(troubles.seconds.values()) == pytest.approx(trio.current_time() - began)
    # At times nothing is wrong; at times everything that can be at once.
    assert set(troubles.seconds) == set(range(len(kinds) + 1))


def test_every_fault_that_is_drawn_is_one() -> None:
    for fault in FAULTS:
        found = Fault.parse(fault.replace("K", "7"))
        assert found.kind in FAULT_KINDS
        assert found.kind not in ("eos", "split", "dribble")  # these are no errors


# -- clients ------------------------------------------------------------------------------------


def test_jobs_of_every_kind_are_drawn() -> None:
    jobs = SyntheticJobs(random.Random(1), KINDS)
    assert {jobs.draw().kind for _ in range(300)} == set(KINDS)


def failed(error: LlcudaError, *upstreams: Upstream, began: float) -> tuple[ChaosClients, Ledger]:
    ledger = Ledger()
    options, rng = Options("127.0.0.1:1"), random.Random(1)
    clients = ChaosClients(options, SyntheticJobs(rng), ledger, rng, upstreams)
    clients._failed(Reading(ledger, job()), error, began)
    assert not ledger.reading
    return clients, ledger


UNAVAILABLE = UpstreamUnavailable("the upstream is not there")


async def test_an_error_is_excused_where_no_upstream_was_well_for_long() -> None:
    now = trio.current_time()
    ill, recovered, well = Victim("ill"), Victim("recovered"), Victim("well")
    ill.trouble, ill.well_since = "kill", now - 1000
    recovered.well_since = now - SETTLED + 1
    well.well_since = now - SETTLED - 1
    clients, ledger = failed(UNAVAILABLE, ill, recovered, began=now)
    assert ledger.violations == []
    assert (ledger.counts["errors"], ledger.counts["error upstream_unavailable"]) == (1, 1)
    assert len(clients.excused) == 1
    assert "the upstream is not there" in clients.excused[0]
    _, ledger = failed(UNAVAILABLE, ill, recovered, well, began=now)
    assert len(ledger.violations) == 1
    assert "(though well was well)" in ledger.violations[0]


@pytest.mark.parametrize(
    "error",
    [
        InternalError("a bug: KeyError"),
        UnknownGeneration("there is none"),
        UpstreamError(""),
        ConnectError("the connection was lost"),
    ],
)
async def test_other_errors_are_not_excused(error: LlcudaError) -> None:
    ill = Victim("ill")
    ill.trouble = "kill"
    _, ledger = failed(error, ill, began=trio.current_time())
    assert len(ledger.violations) == 1


# -- what is looked at in the end ---------------------------------------------------------------


def report(**changes: Any) -> dict[str, Any]:
    upstream = {"name": "a", "state": "up", "busy": 0, "releasing": 0, "foreign": 0, **changes}
    return {"requests": {"running": 0, "queued": 0}, "upstreams": [upstream]}


def test_what_the_server_holds_is_noticed() -> None:
    assert quiet.slots_held(report()) == []
    for wrong in ({"busy": 1}, {"releasing": 1}, {"foreign": 2}, {"state": "down"}, {"busy": None}):
        assert len(quiet.slots_held(report(**wrong))) == 1
    assert len(quiet.slots_held({"requests": {"running": 1, "queued": 0}})) == 1


async def test_what_settles_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    looks = iter([["busy"], ["busy"], []])

    async def look() -> list[str]:
        return next(looks)

    assert await quiet.settled(look) == []

    async def never() -> list[str]:
        return ["busy"]

    began = trio.current_time()
    assert await quiet.settled(never) == ["busy"]
    assert quiet.STEADY <= trio.current_time() - began < quiet.QUIET

    async def moving() -> list[str]:
        return [f"{trio.current_time()}"]

    began = trio.current_time()
    assert await quiet.settled(moving)
    assert quiet.QUIET <= trio.current_time() - began < quiet.QUIET + 1


def looks(resident: list[int], store: int = 0) -> list[memory.Look]:
    """With a store that grows by so much with every look."""
    return [memory.Look(size, n * store) for n, size in enumerate(resident)]


def test_memory_that_grows_is_noticed() -> None:
    base = 60 << 20
    flat = [base + (n % 7 << 16) for n in range(400)]
    assert memory.growth(looks(flat)) is None
    # What is used in the beginning does not count, nor does one that is short.
    assert memory.growth(looks([10 << 20] * 90 + flat[:300])) is None
    grows = [base + n * (100 << 10) for n in range(400)]
    assert "has grown" in (memory.growth(looks(grows)) or "")
    assert memory.growth(looks(grows[: memory.FEWEST - 1])) is None
    # As much as the store grows by may be its pages, up to what is kept of them.
    assert memory.growth(looks(grows, 100 << 10)) is None
    assert "has grown" in (memory.growth(looks(grows, 10 << 10)) or "")
    assert "has grown" in (memory.growth(looks([4 * n << 20 for n in range(400)], 9 << 20)) or "")


def test_the_store_is_looked_at_without_the_journal(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    before = memory.look(os.getpid(), tmp_path).store
    (tmp_path / "journal" / "segment").write_bytes(b"x" * 100_000)
    assert memory.look(os.getpid(), tmp_path).store == before
    (tmp_path / "results.db").write_bytes(b"x" * 100_000)
    found = memory.look(os.getpid(), tmp_path)
    assert found.store >= before + 100_000
    assert found.resident > 1 << 20


def outcome(**counts: int) -> Outcome:
    found = Outcome(Plan(1, 1.0), troubles={"kill": 9})
    found.ledger.counts.update({"acknowledged": 100, "splices": 5, **counts})
    return found


@pytest.mark.parametrize(
    ("counts", "what"),
    [
        ({"acknowledged": 0}, "no answer came to its end"),
        ({"errors": 20}, "20 of 120 readings ended with an error"),
        ({"splices": 0}, "no answer was gone on with on another upstream"),
    ],
)
def test_too_little_and_too_many_are_violations(counts: dict[str, int], what: str) -> None:
    assert outcome().violations == []
    assert outcome(**counts).violations[0] == what
