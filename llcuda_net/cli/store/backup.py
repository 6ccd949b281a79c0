"""`llcuda store backup` and `llcuda store restore`: a copy of a data directory, and back."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from llcuda_net.cli.common import Exit
from llcuda_net.cli.json_documents import line
from llcuda_net.cli.progress import Ticker
from llcuda_net.cli.units import bytes_text, counted
from llcuda_net.config.values import is_database
from llcuda_net.storage.backup.backup import back_up, size_of
from llcuda_net.storage.backup.manifest import Manifest
from llcuda_net.storage.backup.restore import check, check_databases, restore
from llcuda_net.storage.data_dir import default_directory
from llcuda_net.util import logs
from llcuda_net.util.terminal import echo, one_line


class _Bytes(Ticker):
    """Says how many bytes are done, of about how many."""

    def __init__(self, what: str, total: int = 0) -> None:
        super().__init__()
        self._what, self._total, self._count = what, total, 0

    def __enter__(self) -> _Bytes:
        return self

    def add(self, count: int) -> None:
        """So many more are done."""
        self._count += count
        of = f" of {bytes_text(self._total)}" if self._total >= self._count else ""
        self.say(f"{self._what}: {bytes_text(self._count)}{of}")


def backup(arguments: argparse.Namespace) -> int:
    """Run `llcuda store backup`; returns the exit code.

    Raises:
        StorageError: there is no backup, or it is damaged.
    """
    logs.configure("warning")  # to stderr: what a store logs is no part of the output
    target = Path(arguments.target).expanduser().absolute()
    if arguments.verify:
        manifest = Manifest.read(target)
        with _Bytes("compared", manifest.size) as progress:
            manifest = check(target, progress.add)
            progress.show("looking into the databases")
            check_databases(target, manifest)
        return _report(manifest, "verified", f"{target} is as it was made: ", arguments)
    folder = _directory(arguments)
    with _Bytes("copied", size_of(folder)) as progress:
        manifest = back_up(folder, target, progress.add)
    if is_database(store := os.environ.get("LLCUDA_STORE", "")) or manifest.results is None:
        what = "LLCUDA_STORE" if is_database(store) else "a database"
        text = f"results that are in {what} are not in it: run pg_dump now (docs/operating.md)"
        echo(f"note: {text}", file=sys.stderr)
    return _report(manifest, "backup", f"backed up {folder} to {target}: ", arguments)


def restore_backup(arguments: argparse.Namespace) -> int:
    """Run `llcuda store restore`; returns the exit code.

    Raises:
        StorageError: the backup is damaged or newer, or cannot be restored there.
    """
    logs.configure("warning")
    source = Path(arguments.source).expanduser().absolute()
    folder = _directory(arguments)
    manifest = Manifest.read(source)
    with _Bytes("compared and copied", 2 * manifest.size) as progress:
        manifest = restore(source, folder, progress.add)
    return _report(manifest, "restored", f"restored {source} to {folder}: ", arguments)


def _directory(arguments: argparse.Namespace) -> Path:
    named = arguments.data_dir or os.environ.get("LLCUDA_DATA_DIR")
    return Path(named).expanduser().absolute() if named else default_directory()


def _report(manifest: Manifest, word: str, text: str, arguments: argparse.Namespace) -> int:
    if arguments.json:
        echo(
            line(
                {
                    "done": word,
                    "created": manifest.created,
                    "llcuda": manifest.llcuda,
                    "results": manifest.results,
                    "running": manifest.running,
                    "files": len(manifest.files),
                    "bytes": manifest.size,
                }
            )
        )
        return Exit.OK
    parts = [] if manifest.results is None else [counted(manifest.results, "result")]
    parts.append(f"{counted(manifest.running, 'generation')} under way")
    size = f"{bytes_text(manifest.size)} in {counted(len(manifest.files), 'file')}"
    echo(one_line(f"{text}{', '.join(parts)}, {size}, of {manifest.created}"))
    return Exit.OK
