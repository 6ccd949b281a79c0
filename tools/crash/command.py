"""What the campaigns' command lines share: a folder that goes, signals that end it, progress."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import trio

from tools.crash.ledger import Ledger
from tools.overhead.processes import StartError
from tools.overhead.results import machine

_T = TypeVar("_T")
_Plan = TypeVar("_Plan")


class Documented(Protocol):
    """What came of a campaign."""

    def document(self) -> dict[str, Any]:
        """Everything, for a program."""


_Outcome = TypeVar("_Outcome", bound=Documented)


class Interrupted(Exception):  # noqa: N818 - not an error: somebody wished it
    """A signal ended the campaign; `code` is what to exit with."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def run(work: Callable[[Path], Awaitable[_T]]) -> _T:
    """Run a campaign in a folder of its own, which goes when it ends, however it ends.

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

    failure: StartError | None = None
    with tempfile.TemporaryDirectory(prefix="llcuda-campaign-") as folder:
        try:
            return trio.run(main, Path(folder))
        except* StartError as errors:
            failure = _first(errors)
    assert failure is not None
    raise failure


def _first(group: BaseExceptionGroup[StartError]) -> StartError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def run_all(
    plans: Iterable[_Plan],
    work: Callable[[_Plan, Path], Awaitable[_Outcome]],
    summary: Callable[[_Outcome], str],
    seed: int,
    json_file: Path | None,
) -> tuple[list[_Outcome], int]:
    """Run campaigns one after the other, show what came of each, and write all of it as JSON.

    Args:
        seed: that the plans were made with, to be told.

    Returns:
        what came of those that came to their end, and the exit code where these are not all.
    """
    machine_and_load = about()
    print(f"seed {seed}; {machine_line(machine_and_load)}", flush=True)
    outcomes: list[_Outcome] = []
    code = 0
    try:
        for plan in plans:
            outcomes.append(run(partial(work, plan)))
            say("")
            print(f"\n{summary(outcomes[-1])}", flush=True)
    except (Interrupted, KeyboardInterrupt) as interrupted:
        say("")
        print("interrupted", file=sys.stderr)
        code = getattr(interrupted, "code", 130)
    except StartError as error:
        say("")
        print(error, file=sys.stderr)
        code = 1
    if json_file is not None:
        document: dict[str, Any] = {"seed": seed, **machine_and_load, "complete": code == 0}
        document["campaigns"] = [outcome.document() for outcome in outcomes]
        json_file.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return outcomes, code


def say(text: str) -> None:
    """Progress: one line on stderr that is written over; on terminals only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def add_common(out: argparse.ArgumentParser, clients: int) -> None:
    """The options that both have."""
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
    """What clients and store said, in lines of a summary."""
    n = ledger.counts
    kinds = ("read", "detach", "twice", "cancel")
    return [
        ("requests", ", ".join(f"{n[f'{kind} jobs']:,} {kind}" for kind in kinds)),
        ("", f"{n['detached']:,} detached, {n['attached']:,} attached by another client"),
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
    """The machine, and how busy it was before."""
    return {"machine": machine(), "load_before": os.getloadavg()[0]}


def machine_line(about: dict[str, Any]) -> str:
    """The same in one line."""
    known = {"cpu": "?", **about["machine"]}
    line = "{cpu}, {cores} cores, Linux {kernel}, Python {python}".format(**known)
    return f"{line}; load {about['load_before']:.1f} before"
