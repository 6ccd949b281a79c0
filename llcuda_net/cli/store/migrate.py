"""`llcuda store migrate`: all of one store into another, as often as it takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.json_documents import line
from llcuda_net.cli.progress import Progress
from llcuda_net.cli.units import counted
from llcuda_net.config.values import is_database
from llcuda_net.server.processes.database import running
from llcuda_net.server.processes.folders import unfinished
from llcuda_net.storage.data_dir import prepare
from llcuda_net.storage.directory_lock import DirectoryLock, holder
from llcuda_net.storage.postgres.opening import open_postgres
from llcuda_net.storage.results.interface import Store
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.results.transfer import Transferred, index, transfer
from llcuda_net.util import logs
from llcuda_net.util.terminal import echo, one_line

#: Problems that are named.
_NAMED = 20


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
    def opened(self, *, write: bool) -> Iterator[Store]:
        """The store.

        Raises:
            StorageError: it cannot be opened.
        """
        with ExitStack() as stack:
            store: Store
            if self.folder is None:
                store = open_postgres(self.url, write)
            elif not self.is_sqlite:
                store = open_postgres(stack.enter_context(running(self.folder)), write)
            else:
                if write:
                    prepare(self.folder)
                    stack.callback(DirectoryLock(self.folder, "llcuda store migrate").release)
                store = SqliteStore(self.folder, write=write)
            yield stack.enter_context(closing(store))


def migrate(source: str, target: str, *, as_json: bool) -> int:
    """Copy all results of a store into another; returns the exit code.

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
            if not (from_.is_sqlite or set(old.names()).isdisjoint(new.names())):
                fail("FROM and TO are the same store")
            _warn(from_)
            done = _copy(old, new)
    return _report(done, as_json=as_json)


def _warn(source: _Place) -> None:
    """Say what is not among the results, or may not be all."""
    folder = source.folder
    if folder is None:
        return
    if holder(folder) is not None:
        text = f"a server uses {folder}: when it has stopped, run this again for what it stores now"
        echo(f"note: {one_line(text)}", file=sys.stderr)
    elif source.is_sqlite and (count := unfinished(folder)):
        text = f"{folder} has {counted(count, 'request')} that did not end: start its server once"
        echo(f"note: {one_line(text)}, and run this again", file=sys.stderr)


def _copy(old: Store, new: Store) -> Transferred:
    total = old.stats().results
    with Progress(f"copied and compared, of {total:,}") as progress:
        try:
            done = transfer(old, new, progress.add)
        except BaseException:
            progress.erase()
            text = f"ended early: {counted(progress.count, 'result')} of {total:,} are there"
            echo(f"{text}; the same command goes on", file=sys.stderr)
            raise
    with Progress("indexed for search") as progress:
        index(new, progress.add)
    return done


def _report(done: Transferred, *, as_json: bool) -> int:
    if as_json:
        problems = [asdict(problem) for problem in done.problems]
        echo(line({"copied": done.copied, "there": done.there, "problems": problems}))
    else:
        echo(
            f"copied {counted(done.copied, 'result')}; {done.there:,} were there; "
            "each was read there and compared"
        )
        for problem in done.problems[:_NAMED]:
            echo(one_line(f"{problem.id} {problem.message}"), file=sys.stderr)
        if len(done.problems) > _NAMED:
            echo(f"and {len(done.problems) - _NAMED:,} more", file=sys.stderr)
    return Exit.REFUSED if done.problems else Exit.OK
