"""`llcuda store migrate`: all of one store into another, as often as it takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from llcuda_net.analysis.certainty import certainty_stats
from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.json_documents import line
from llcuda_net.cli.progress import Progress
from llcuda_net.cli.units import counted
from llcuda_net.config.values import is_database
from llcuda_net.errors import StorageError
from llcuda_net.server.processes.database import running
from llcuda_net.server.processes.folders import unfinished
from llcuda_net.storage.data_dir import prepare
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.postgres.opening import open_postgres
from llcuda_net.storage.results.interface import Store
from llcuda_net.storage.results.sqlite import RESULTS, SqliteStore
from llcuda_net.storage.transfer.analyses import transfer_embeddings
from llcuda_net.storage.transfer.objects import Copied, Side, count, transfer_objects
from llcuda_net.storage.transfer.results import Transferred, index, transfer
from llcuda_net.storage.transfer.sides import postgres_side, sqlite_side
from llcuda_net.util import logs
from llcuda_net.util.terminal import echo, one_line

#: Problems that are named.
_NAMED = 20


@dataclass(frozen=True)
class _Opened:
    """A store that is open: results, and what clients keep beside them; None: nothing is."""

    results: Store
    objects: Side | None


@dataclass(frozen=True)
class _Place:
    """A store, as the command line names it.

    Attributes:
        url: of a database; empty: it is in the folder.
        folder: a data directory.
        is_sqlite: whether the store of the folder is SQLite's, or a database of our own.
    """

    url: str = ""
    folder: Path | None = None
    is_sqlite: bool = False

    @classmethod
    def parse(cls, text: str, what: str) -> _Place:
        kind, _, folder = text.partition(":")
        if is_database(text):
            return cls(text)
        if kind not in ("sqlite", "processes") or not folder.strip():
            # The text is not repeated: there may be a password in it.
            fail(f"{what} must be sqlite:DIR, postgresql://user@host/name or processes:DIR")
        return cls("", Path(folder).expanduser().resolve(), kind == "sqlite")

    @contextmanager
    def opened(self, *, write: bool) -> Iterator[_Opened]:
        """The store.

        Raises:
            StorageError: it cannot be opened.
        """
        with ExitStack() as stack:
            if self.folder is None or not self.is_sqlite:
                url = self.url if self.folder is None else stack.enter_context(running(self.folder))
                store = stack.enter_context(closing(open_postgres(url, write)))
                _refuse_servers(url)
                yield _Opened(store, stack.enter_context(postgres_side(url)))
                return
            if write:
                prepare(self.folder)
            if write or ((self.folder / RESULTS).exists() and os.access(self.folder, os.W_OK)):
                stack.callback(DirectoryLock(self.folder, "llcuda store migrate").release)
            sqlite = stack.enter_context(closing(SqliteStore(self.folder, write=write)))
            yield _Opened(sqlite, stack.enter_context(sqlite_side(self.folder, write=write)))


def migrate(source: str, target: str, *, as_json: bool) -> int:
    """Copy all of a store into another; returns the exit code.

    Raises:
        CommandError: a place is none.
        StorageError: a store cannot be opened, read or written.
    """
    logs.configure("warning")  # to stderr: what a store logs is no part of the output
    from_, to = _Place.parse(source, "FROM"), _Place.parse(target, "TO")
    with from_.opened(write=False) as old:
        if from_ == to:
            fail("FROM and TO are the same store")
        with to.opened(write=True) as new:
            names = set(old.results.names())
            if not (from_.is_sqlite or names.isdisjoint(new.results.names())):
                fail("FROM and TO are the same store")
            _note_open(from_)
            results, objects = _copy(old, new)
    return _report(results, objects, as_json=as_json)


def _refuse_servers(url: str) -> None:
    """Raise StorageError if a server uses a database: what it stores would be left out."""
    from llcuda_net.cluster.leases import members
    from llcuda_net.storage.postgres.connection import Session

    with closing(Session(url, write=False)) as session:
        found = session.ask("the servers cannot be read", members)
    for one in found:
        if one.seconds > 0:
            raise StorageError(
                f"the server {one.name} ({one.address}) uses {session.place}: stop all servers of "
                "both stores first",
                StorageError.REFUSED,
            )


def _note_open(source: _Place) -> None:
    """Say what is not among the results yet."""
    folder = source.folder
    if folder is not None and source.is_sqlite and (count := unfinished(folder)):
        text = f"{folder} has {counted(count, 'request')} that did not end: start its server once"
        echo(f"note: {one_line(text)}, and run this again", file=sys.stderr)


def _copy(old: _Opened, new: _Opened) -> tuple[Transferred, Copied]:
    with _counting("result", old.results.stats().results) as progress:
        results = transfer(old.results, new.results, progress.add)
    with Progress("indexed for search") as progress:
        index(new.results, progress.add)
    with Progress("embeddings copied") as progress:
        transfer_embeddings(old.results, new.results, progress.add)
    with Progress("steps of certainty computed") as progress:
        while new.results.analyses.compute_certainty(partial(certainty_stats, compiled=False)):
            progress.add()
    objects = Copied()
    if old.objects is not None and new.objects is not None:
        with _counting("object", count(old.objects)) as progress:
            objects = transfer_objects(old.objects, new.objects, progress.add)
    return results, objects


@contextmanager
def _counting(what: str, total: int) -> Iterator[Progress]:
    """Progress that says how far it came where it ends early."""
    with Progress(f"copied and compared, of {counted(total, what)}") as progress:
        try:
            yield progress
        except BaseException as error:
            progress.erase()
            error.add_note(f"{progress.count:,} of {counted(total, what)} are there")
            raise


def _report(results: Transferred, objects: Copied, *, as_json: bool) -> int:
    problems = results.problems + objects.problems
    if as_json:
        found = {"copied": results.copied, "there": results.there}
        also = {"copied": objects.copied, "there": objects.there}
        told = [asdict(problem) for problem in problems]
        echo(line({**found, "objects": also, "problems": told}))
    else:
        for done, what in ((results, "result"), (objects, "object")):
            if what == "result" or done.copied or done.there:
                echo(f"copied {counted(done.copied, what)}; {done.there:,} were there")
        echo("each was read there and compared")
        for problem in problems[:_NAMED]:
            echo(one_line(f"{problem.id} {problem.message}"), file=sys.stderr)
        if len(problems) > _NAMED:
            echo(f"and {len(problems) - _NAMED:,} more", file=sys.stderr)
    return Exit.REFUSED if problems else Exit.OK
