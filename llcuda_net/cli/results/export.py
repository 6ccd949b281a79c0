"""`llcuda results export`: whole results, as JSON lines, CSV or Parquet.

JSON lines hold what `show --json` gives. CSV and Parquet have one column per single value, and JSON
in a column for structures. Damaged results are left out, and named.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.json_documents import document, line, logprobs, reasoning, switches, tool_calls
from llcuda_net.cli.progress import Progress
from llcuda_net.cli.results.command import query_of
from llcuda_net.cli.units import counted, iso
from llcuda_net.storage.packing.codec import prompt_text
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Problem, Store
from llcuda_net.util.csv_lines import csv_line
from llcuda_net.util.terminal import StdoutFile, echo, is_terminal, one_line

#: Rows of a group in a Parquet file.
_GROUP = 1000


def _json(value: Any) -> str | None:
    return None if value is None else line(value)


def _seed(found: Result) -> int | None:
    """The seed, where a column can hold it; `request` has it in any case."""
    return None if found.seed is None or abs(found.seed) >= 2**63 else found.seed


#: Column, Parquet type, value. A time is nanoseconds, which CSV writes out.
_COLUMNS: tuple[tuple[str, str, Callable[[Result], Any]], ...] = (
    ("id", "string", lambda r: r.id),
    ("state", "string", lambda r: r.state),
    ("created", "time", lambda r: r.created),
    ("finished", "time", lambda r: r.finished),
    ("model", "string", lambda r: str(r.model.get("name", ""))),
    ("prompt", "string", lambda r: prompt_text(r.request)),
    ("text", "string", lambda r: r.text),
    ("reason", "string", lambda r: r.reason),
    ("stop", "string", lambda r: r.stop),
    ("completion_tokens", "int64", lambda r: r.usage.get("completion_tokens")),
    ("prompt_tokens", "int64", lambda r: r.usage.get("prompt_tokens")),
    ("seed", "int64", _seed),
    ("upstream", "string", lambda r: r.upstream),
    ("level", "string", lambda r: str(r.level)),
    ("owner", "string", lambda r: r.owner),
    ("idempotency_key", "string", lambda r: r.key),
    ("request_hash", "string", lambda r: r.request_hash.hex()),
    ("cacheable", "bool", lambda r: r.cacheable),
    ("cached_from", "string", lambda r: r.cached_from),
    ("on_disconnect", "string", lambda r: _json(r.on_disconnect)),
    ("error", "string", lambda r: _json(r.error)),
    ("request", "string", lambda r: _json(r.request)),
    ("fingerprint", "string", lambda r: _json(r.model)),
    ("usage", "string", lambda r: _json(r.usage)),
    ("timings", "string", lambda r: _json(r.timings)),
    ("splices", "string", lambda r: _json(document(r)["splices"])),
    ("pieces", "string", lambda r: _json(r.log.pieces)),
    ("ids", "string", lambda r: _json(r.log.ids)),
    ("logprobs", "string", lambda r: _json(logprobs(r))),
    ("reasoning", "string", reasoning),
    ("tool_calls", "string", lambda r: _json(tool_calls(r) or None)),
    ("switches", "string", lambda r: _json(switches(r) or None)),
)
_NAMES = [name for name, _, _ in _COLUMNS]

#: Damaged results that are named, at most; `verify` names all.
_NAMED = 10


def export_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results export`."""
    format_ = _format(arguments)
    write = _WRITERS[format_]
    if arguments.raw_cells:
        if format_ != "csv":
            fail(f"--raw-cells is about CSV, and this is {format_}")
        write = partial(write, raw=True)
    problems: list[Problem] = []
    if format_ == "parquet":
        _pyarrow()
        if arguments.output is None and is_terminal(sys.stdout):
            fail("Parquet is not for terminals: say --output FILE")
    with Progress("exported", alone=arguments.output is not None) as progress:

        def results() -> Iterator[Result]:
            for found in store.export(query_of(arguments), problems):
                progress.add()
                yield found

        if arguments.output is None:
            sys.stdout.flush()
            target: Any = StdoutFile()
            write(results(), target)
            target.flush()
        else:
            with _replacing(Path(arguments.output)) as file:
                write(results(), file)
    nothing = "" if progress.count else "no results match: "
    if arguments.output is not None:
        echo(f"{nothing}wrote {counted(progress.count, 'result')}", file=sys.stderr)
    elif nothing:
        echo("no results match", file=sys.stderr)
    return _report(problems)


def _report(problems: list[Problem]) -> int:
    for problem in problems[:_NAMED]:
        echo(one_line(f"left out: {problem.id} {problem.message}"), file=sys.stderr)
    if len(problems) > _NAMED:
        echo(f"and {len(problems) - _NAMED:,} more: see `llcuda results verify`", file=sys.stderr)
    return Exit.REFUSED if problems else Exit.OK


def _format(arguments: argparse.Namespace) -> str:
    if arguments.json:
        if arguments.format not in (None, "jsonl"):
            fail(f"--json and --format {arguments.format} do not go together")
        return "jsonl"
    if arguments.format is not None:
        return str(arguments.format)
    if arguments.output is None:
        return "jsonl"
    suffix = Path(arguments.output).suffix.lower()
    return {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}.get(suffix, "jsonl")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, private to its owner, which takes this path when the block ends well."""
    path = path.resolve()
    if path.is_dir():
        fail(f"{path} is a directory")
    if path.exists() and not path.is_file():  # a pipe, say, or /dev/null
        with path.open("wb") as device:
            yield device
        return
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name[:50]}.", dir=path.parent)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}", Exit.REFUSED)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


# -- the formats ------------------------------------------------------------------------------


def _write_jsonl(results: Iterable[Result], file: BinaryIO) -> None:
    for found in results:
        file.write(line(document(found)).encode() + b"\n")


def _write_csv(results: Iterable[Result], file: BinaryIO, *, raw: bool = False) -> None:
    file.write(csv_line(_NAMES).encode())
    for found in results:
        cells = [
            iso(value(found)) if kind == "time" else value(found) for _, kind, value in _COLUMNS
        ]
        file.write(csv_line(cells, raw=raw).encode("utf-8", "replace"))


def _write_parquet(results: Iterable[Result], file: BinaryIO) -> None:
    pa, pq = _pyarrow()
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("ns", tz="UTC"),
    }
    schema = pa.schema([(name, types[kind]) for name, kind, _ in _COLUMNS])
    source = iter(results)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(source, _GROUP)):
            columns = [
                pa.array([value(found) for found in group], type=types[kind])
                for _, kind, value in _COLUMNS
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        fail("Parquet needs pyarrow: pip install 'llcuda-net[parquet]'")
    return pyarrow, pyarrow.parquet


_WRITERS: dict[str, Callable[..., None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
