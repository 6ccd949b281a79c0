"""`llcuda results verify`, `delete`, `prune` and `stats`: maintenance of what is stored."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import chain

from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.json_documents import line
from llcuda_net.cli.progress import Progress
from llcuda_net.cli.results.command import data_directory, named_store, open_store
from llcuda_net.cli.results.find import NAMED, whole_id
from llcuda_net.cli.tables import fields, table
from llcuda_net.cli.units import bytes_text, counted, iso, local
from llcuda_net.config.values import is_database
from llcuda_net.storage import damage
from llcuda_net.storage.objects.verify import parts
from llcuda_net.storage.objects.verify import problems as problems_of_objects
from llcuda_net.storage.results.interface import Problem, Retention, Stats, Store
from llcuda_net.storage.transfer.sides import postgres_side
from llcuda_net.util.terminal import echo, one_line

#: Days that the table of figures shows; --json gives all.
_DAYS = 14


def verify_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results verify`."""
    problems = []
    with Progress("verified") as progress:
        objects = _of_objects(arguments)
        for problem in chain(_noted(arguments), store.verify(), objects):
            progress.add()
            if problem is not None:
                problems.append(problem)
                if not arguments.json:
                    progress.erase()
                    echo(one_line(f"{problem.id} {problem.message}".strip()))
    if arguments.json:
        found = [asdict(problem) for problem in problems]
        echo(line({"ok": not problems, "checked": progress.count, "problems": found}))
    elif problems:
        echo(
            f"{counted(len(problems), 'problem')} in {counted(progress.count, 'content')}",
            file=sys.stderr,
        )
    elif not progress.count:
        echo("nothing is stored: there was nothing to verify")
    else:
        echo(f"{counted(progress.count, 'content')}, all as they were stored")
    return Exit.REFUSED if problems else Exit.OK


def _of_objects(arguments: argparse.Namespace) -> Iterator[Problem | None]:
    """What is damaged of that which clients keep beside results."""
    store = named_store(arguments)
    if is_database(store):
        with postgres_side(store) as side:
            yield from parts(side.rows, "the database")
    else:
        yield from problems_of_objects(data_directory(arguments))


def _noted(arguments: argparse.Namespace) -> list[Problem]:
    """What starts of the server have found damaged or lost."""
    folder = data_directory(arguments)
    hint = f"(noted in {folder / damage.NAME}: delete that file when you have seen to it)"
    return [Problem("", f"{line} {hint}") for line in damage.noted(folder)]


def delete_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results delete`."""
    id_ = whole_id(store, arguments.id)
    if arguments.yes:
        with closing(open_store(arguments, write=True)) as writing:
            if writing.delete(id_) is None:
                fail(f"the result {arguments.id} was deleted just now", Exit.REFUSED)
    if arguments.json:
        echo(line({"deleted": arguments.yes, "id": id_}))
    elif arguments.yes:
        echo(one_line(f"deleted {id_}"))
    else:
        echo(one_line(f"{id_} would go; nothing was deleted: to do so, add --yes"))
    return Exit.OK


def prune_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results prune`."""
    if arguments.older_than is None and arguments.max_size is None:
        fail("say what is to go: --older-than 30d, --max-size 2GB, or both")
    retention = Retention(before=arguments.older_than, max_bytes=arguments.max_size)
    plan = store.plan(retention)
    if arguments.yes and plan.results:
        return _prune(arguments, retention)
    if arguments.json:
        newest = None if plan.newest is None else iso(plan.newest)
        echo(line({"deleted": False, **asdict(plan), "newest": newest}))
    elif plan.newest is None:
        echo("nothing would go: no result is that old, and all fit")
    else:
        echo(
            f"{counted(plan.results, 'result')} ({bytes_text(plan.bytes)}) would go, the newest of "
            f"them of {local(plan.newest)}; nothing was deleted: to do so, add --yes"
        )
    return Exit.OK


def _prune(arguments: argparse.Namespace, retention: Retention) -> int:
    size = left = 0
    with closing(open_store(arguments, write=True)) as store, Progress("deleted") as progress:
        try:
            for step in store.prune(retention):
                size += step.bytes
                left += step.damaged
                progress.add(step.results)
        except BaseException:
            progress.erase()
            done = f"ended early: {counted(progress.count, 'result')} ({bytes_text(size)}) are gone"
            echo(done, file=sys.stderr)
            raise
    if arguments.json:
        echo(line({"deleted": True, "results": progress.count, "bytes": size}))
    else:
        echo(f"deleted {counted(progress.count, 'result')} ({bytes_text(size)})")
    if left:  # the index and the row disagree about its age
        echo(f"{counted(left, 'result')} damaged and left: {NAMED}", file=sys.stderr)
        return Exit.REFUSED
    return Exit.OK


def stats_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results stats`."""
    stats = store.stats()
    if arguments.json:
        times = {
            name: None if value is None else iso(value)
            for name, value in (("oldest", stats.oldest), ("newest", stats.newest))
        }
        echo(line({**asdict(stats), **times}))
        return Exit.OK
    for text in _lines(stats):
        echo(text, styled=True)
    return Exit.OK


def _lines(stats: Stats) -> Iterator[str]:
    pairs = [("results", f"{stats.results:,}"), ("files", bytes_text(stats.bytes))]
    if stats.oldest is not None and stats.newest is not None:
        pairs += [("oldest", local(stats.oldest)), ("newest", local(stats.newest))]
    pairs.append(("tokens ever", f"{stats.tokens:,} generated, {stats.prompt_tokens:,} of prompts"))
    if stats.unindexed:
        pairs.append(("not indexed yet", f"{stats.unindexed:,}"))
    yield from fields(pairs, indent="")
    for name, counts in (("state", stats.states), ("model", stats.models)):
        if counts:
            yield ""
            rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            yield from table(
                ("results", name),
                [(f"{count:,}", key) for key, count in rows],
                right=frozenset({0}),
            )
    days = sorted({one.day for one in stats.days}, reverse=True)
    if days:
        yield ""
        shown = set(days[:_DAYS])
        yield from table(
            ("day (UTC)", "results", "generated", "prompts", "state", "model"),
            [
                (
                    one.day,
                    f"{one.results:,}",
                    f"{one.tokens:,}",
                    f"{one.prompt_tokens:,}",
                    one.state,
                    one.model,
                )
                for one in stats.days
                if one.day in shown
            ],
            right=frozenset({1, 2, 3}),
        )
        if len(days) > _DAYS:
            yield f"and {counted(len(days) - _DAYS, 'earlier day')}: see --json"
