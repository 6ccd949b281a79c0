"""The command line of the campaigns: temporary folder, signals, progress, summary, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.campaign.campaign import Outcome, Plan, Say, leaves
from tools.campaign.ledger import Ledger
from tools.overhead.processes import StartError
from tools.overhead.results import machine

_T = TypeVar("_T")
_PlanT = TypeVar("_PlanT", bound=Plan)
_OutcomeT = TypeVar("_OutcomeT", bound=Outcome[Any])


class Interrupted(Exception):  # noqa: N818 - not an error: the user wished it
    """A signal ended the campaign; `code` is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def run(work: Callable[[Path], Awaitable[_T]]) -> _T:
    """Run a campaign in a temporary folder, which is deleted however the campaign ends.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP came; nothing runs any more.
        StartError: something that the campaign needs did not start.
    """

    async def main(folder: Path) -> _T:
        numbers: list[int] = []
        out: list[_T] = []
        async with trio.open_nursery() as nursery:

            async def watch(*, task_status: trio.TaskStatus[None]) -> None:
                ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
                with trio.open_signal_receiver(*ends) as signals:
                    task_status.started()
                    async for number in signals:
                        numbers.append(number)
                        nursery.cancel_scope.cancel()

            await nursery.start(watch)
            out.append(await work(folder))
            nursery.cancel_scope.cancel()
        if numbers:
            raise Interrupted(numbers[0])
        return out[0]

    failure: BaseException | None = None
    with tempfile.TemporaryDirectory(prefix="llcuda-campaign-") as folder:
        try:
            return trio.run(main, Path(folder))
        except* StartError as errors:
            failure = leaves(errors)[0]
    assert failure is not None
    raise failure


def conduct(
    plans: Iterable[_PlanT],
    work: Callable[[_PlanT, Path, Say], Awaitable[_OutcomeT]],
    summary: Callable[[_OutcomeT], str],
    seed: int,
    json_file: Path | None,
    *,
    single: bool = False,
) -> tuple[list[_OutcomeT], int]:
    """Run campaigns one after the other, print a summary of each, and write all of it as JSON.

    Args:
        seed: that the plans were made with, to be printed.
        single: the JSON holds the only campaign's document, and is written if it ended.

    Returns:
        The outcomes of the campaigns that ended, and the exit code if not all did, or else 0.
    """
    machine_and_load = about()
    echo(f"seed {seed}; {machine_line(machine_and_load)}", flush=True)
    outcomes: list[_OutcomeT] = []
    code = 0
    try:
        for plan in plans:
            outcomes.append(run(partial(_worked, work, plan)))
            say("")
            echo(f"\n{summary(outcomes[-1])}", flush=True)
    except (Interrupted, KeyboardInterrupt) as interrupted:
        say("")
        echo("interrupted", file=sys.stderr)
        code = getattr(interrupted, "code", 130)
    except StartError as error:
        say("")
        echo(str(error), file=sys.stderr)
        code = 1
    documents = [outcome.document() for outcome in outcomes]
    document: dict[str, Any] = {"seed": seed, **machine_and_load, "complete": code == 0}
    document["campaigns"] = documents
    if single:
        document = {**machine_and_load, **documents[0]} if documents else {}
    if json_file is not None and document:
        json_file.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return outcomes, code


async def _worked(
    work: Callable[[_PlanT, Path, Say], Awaitable[_OutcomeT]], plan: _PlanT, folder: Path
) -> _OutcomeT:
    return await work(plan, folder, say)


def exit_code(outcomes: Sequence[Outcome[Any]], code: int, broken: str | None = None) -> int:
    """The exit code after `conduct`.

    Args:
        code: of campaigns that did not end.
        broken: the user ran one broken server, which must fail as a sound one would.
    """
    if code:
        return code
    if broken is not None:
        return int(bool(outcomes[0].violations))
    return int(not all(outcome.is_well for outcome in outcomes))


def say(text: str) -> None:
    """Show progress in one line on stderr, on terminals only; each call overwrites it."""
    if is_clever(sys.stderr):
        status_line(text, sys.stderr)


def add_common(out: argparse.ArgumentParser, clients: int) -> None:
    """Add the options of every campaign with clients."""
    out.add_argument("--seed", type=int, help="of everything random (default: a new one, printed)")
    out.add_argument("--clients", type=positive, default=clients, help="(default %(default)s)")
    out.add_argument(
        "--rate", type=above_0, default=60.0, help="tokens/s of each stream (default %(default)g)"
    )
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def count(text: str) -> int:
    """A whole number, 0 included."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def above_0(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def seed_of(given: int | None) -> int:
    """The seed: given, or drawn."""
    return int.from_bytes(os.urandom(4), "big") if given is None else given


# -- the summary --------------------------------------------------------------------------------


def rows(ledger: Ledger) -> list[tuple[str, str]]:
    """The lines of a summary about clients and store."""
    n = ledger.counts
    kinds = ("read", "detach", "twice", "cancel")
    return [
        ("requests", ", ".join(f"{n[f'{kind} jobs']:,} {kind}" for kind in kinds)),
        ("", f"{n['detached']:,} detached, {n['attached']:,} attached by another client"),
        (
            "over HTTP",
            (
                f"{n['http jobs']:,} requests, resumed {n['http resumed by GET']:,} times by id, "
                f"{n['http resumed by POST']:,} by key and id"
            ),
        ),
        (
            "responses",
            (
                f"{n['response jobs']:,} in the background, read on "
                f"{n['responses resumed by starting_after']:,} times by starting_after"
            ),
        ),
        ("pieces compared", f"{n['pieces']:,}: text, id, log-probabilities and number"),
        ("acknowledged", f"{n['acknowledged']:,} times, of {len(ledger.kept):,} generations"),
        ("  in the store", f"{n['found in the store']:,} when looked for at once"),
        ("  unaltered", f"{n['unaltered at the end']:,} at the end"),
        (
            "stored in all",
            f"{n['stored']:,} at the end; one that no client knows of is a violation",
        ),
        ("continued", f"{n['spliced results']:,} results, {n['splices']:,} times"),
        ("verified", f"{n['contents verified']:,} contents by llcuda results verify"),
    ]


def verdict(ledger_violations: list[str], total: int) -> list[tuple[str, str]]:
    """The last lines of a summary."""
    if not ledger_violations:
        return [("violations", "none")]
    more = max(0, total - len(ledger_violations))
    out = [("VIOLATIONS", f"{len(ledger_violations) + more}")]
    out += [("", text) for text in ledger_violations]
    return out + ([("", f"… and {more} more")] if more else [])


def table(lines: list[tuple[str, str]]) -> str:
    """Lines of name and text, aligned."""
    return "\n".join(f"{name:18}{text}".rstrip() for name, text in lines)


def about() -> dict[str, Any]:
    """The machine, and its load before the campaign."""
    return {"machine": machine(), "load_before": os.getloadavg()[0]}


def machine_line(about: dict[str, Any]) -> str:
    """The same in one line."""
    known = {"cpu": "?", **about["machine"]}
    line = "{cpu}, {cores} cores, Linux {kernel}, Python {python}".format(**known)
    return f"{line}; load {about['load_before']:.1f} before"
