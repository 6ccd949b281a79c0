"""`llcuda results export`: JSON lines, CSV, Parquet, and files that are written whole or not."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from llcuda_net.cli.common import Exit
from llcuda_net.cli.units import iso
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.util.terminal import harmless
from tests.support.cli.results import ODD, TWIN, Llcuda, damage, everything
from tests.support.storage.records import result


@pytest.mark.usefixtures("directory")
def test_export_as_json_lines(llcuda: Llcuda, tmp_path: Path) -> None:
    found = llcuda("export").objects
    assert [one["id"] for one in found] == [one.id for one in everything()]
    assert found == llcuda("export", "--json").objects
    (shown,) = llcuda("show", "--json", ODD).objects
    assert "certainty" in shown
    del shown["certainty"]
    assert shown in found
    file = tmp_path / "all.jsonl"
    done = llcuda("export", "--output", str(file))
    assert (done.code, done.out, done.err) == (0, "", "wrote 23 results\n")
    assert [json.loads(line) for line in file.read_text().split("\n")[:-1]] == found
    assert file.stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("directory")
def test_export_filters(llcuda: Llcuda) -> None:
    (found,) = llcuda("export", "--state", "failed").objects
    assert found["id"] == TWIN
    assert [one["id"] for one in llcuda("export", "--limit", "2").objects] == [
        "result-000000",
        "result-000001",
    ]


def expected_row(one: Result) -> dict[str, Any]:
    """What the single columns hold of a result."""
    return {
        "id": one.id,
        "state": one.state,
        "model": one.model["name"],
        "text": one.text,
        "stop": one.stop,
        "completion_tokens": one.usage.get("completion_tokens"),
        "seed": one.seed,
        "cacheable": one.cacheable,
        "idempotency_key": one.key,
        "request_hash": one.request_hash.hex(),
    }


JSON_COLUMNS = ("request", "usage", "timings", "error", "splices", "pieces", "ids", "logprobs")


@pytest.mark.usefixtures("directory")
def test_export_as_csv_round_trips(llcuda: Llcuda, tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    assert llcuda("export", "--output", str(file)).code == 0
    assert llcuda("export", "--format", "csv").out == file.read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))
    documents = llcuda("export", "--json").objects
    assert len(rows) == 23
    for row, one, whole in zip(rows, everything(), documents, strict=True):
        for name, value in expected_row(one).items():
            text = "" if value is None else harmless(str(value))
            assert row[name] == (text.lower() if isinstance(value, bool) else text)
        assert row["created"] == iso(one.created)
        for name in JSON_COLUMNS:
            assert (json.loads(row[name]) if row[name] else None) == whole[name]
        assert json.loads(row["fingerprint"]) == one.model


@pytest.mark.usefixtures("directory")
def test_export_as_parquet_round_trips(llcuda: Llcuda, tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    assert llcuda("export", "--output", str(file)).code == 0
    table = parquet.read_table(file)
    documents = llcuda("export", "--json").objects
    columns = {
        name: table.column(name).to_pylist()
        for name in table.column_names
        if name not in ("created", "finished")
    }
    created = table.column("created").cast("int64").to_pylist()
    for number, (one, whole) in enumerate(zip(everything(), documents, strict=True)):
        for name, value in expected_row(one).items():
            assert columns[name][number] == value
        assert created[number] == one.created
        for name in JSON_COLUMNS:
            text = columns[name][number]
            assert (None if text is None else json.loads(text)) == whole[name]


def test_export_of_nothing_still_has_its_columns(
    directory: Path, llcuda: Llcuda, tmp_path: Path
) -> None:
    nothing = ("export", "--since", "1h")
    assert llcuda(*nothing).out == ""
    (heads,) = llcuda(*nothing, "--format", "csv").lines
    file = tmp_path / "none.pq"
    assert llcuda(*nothing, "-o", str(file)).code == 0
    table = parquet.read_table(file)
    assert (table.num_rows, table.column_names) == (0, heads.split(","))
    assert directory.exists()


@pytest.mark.usefixtures("directory")
def test_parquet_without_pyarrow_names_the_extra(
    llcuda: Llcuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    file = tmp_path / "all.parquet"
    done = llcuda("export", "-o", str(file))
    assert done.code == Exit.USAGE
    assert done.err == (
        "llcuda results export: error: Parquet needs pyarrow: pip install 'llcuda-net[parquet]'\n"
    )
    assert not file.exists()


@pytest.mark.usefixtures("directory")
def test_export_to_what_cannot_be_written(llcuda: Llcuda, tmp_path: Path) -> None:
    done = llcuda("export", "-o", str(tmp_path / "none/all.csv"))
    assert (done.code, done.out) == (Exit.REFUSED, "")
    assert re.search(r"error: cannot write .*all\.csv: No such file or directory\n$", done.err)
    assert "is a directory" in llcuda("export", "-o", str(tmp_path)).err
    done = llcuda("export", "--json", "--format", "csv")
    assert (done.code, "do not go together" in done.err) == (Exit.USAGE, True)
    assert llcuda("export", "-o", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_an_export_goes_on_past_damaged_results(
    format_: str, directory: Path, llcuda: Llcuda, tmp_path: Path
) -> None:
    """Those are named on stderr, and the exit code says that they are not there."""
    damage(directory)
    file = tmp_path / f"all.{format_}"
    done = llcuda("export", "-o", str(file))
    assert (done.code, done.out) == (Exit.REFUSED, "")
    wrote, *named = done.err.splitlines()
    assert wrote == "wrote 21 results"
    assert [line.split()[:3] for line in named] == [
        ["left", "out:", "result-000007"],
        ["left", "out:", "result-000042"],
    ]
    if format_ == "jsonl":
        found = [json.loads(line)["id"] for line in file.read_text().splitlines()]
        gone = ("result-000007", "result-000042")
        assert found == [one.id for one in everything() if one.id not in gone]
    elif format_ == "csv":
        with file.open(newline="") as text:
            assert len(list(csv.reader(text))) == 22
    else:
        assert parquet.read_table(file).num_rows == 21


def test_cells_that_a_spreadsheet_would_run(
    directory: Path, llcuda: Llcuda, tmp_path: Path
) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1"]
    store = SqliteStore(directory, write=True)
    for number, text in enumerate(formulas):
        kept = result(100 + number, key=text, seed=-5, request={"prompt": f"{text}\rx"})
        kept.log.pieces[0] = text
        store.put([kept])
    store.close()

    def rows(*options: str) -> list[dict[str, str]]:
        out = llcuda("export", "--format", "csv", *options).out
        return list(csv.DictReader(io.StringIO(out, newline=""), strict=True))[-len(formulas) :]

    for row, raw, text in zip(rows(), rows("--raw-cells"), formulas, strict=True):
        shown = f"'{harmless(text)}"
        assert (row["idempotency_key"], row["prompt"]) == (shown, f"{shown}\\x0dx")
        assert (raw["idempotency_key"], raw["prompt"]) == (text, f"{text}\rx")
        assert row["text"] == "'" + harmless(raw["text"])
        assert row["seed"] == raw["seed"] == "-5"  # a number of ours
    (one,) = llcuda("export", "--json", "--limit", "24").objects[-1:]
    assert one["idempotency_key"] == "=1+1"
    done = llcuda("export", "--raw-cells")
    assert (done.code, "--raw-cells is about CSV" in done.err) == (Exit.USAGE, True)


@pytest.mark.usefixtures("directory")
def test_ctrl_c_leaves_no_half_an_export(
    llcuda: Llcuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: Any) -> Iterator[Result]:
        yield result(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(SqliteStore, "export", interrupted)
    file = tmp_path / "all.jsonl"
    file.write_text("as it was")
    done = llcuda("export", "-o", str(file))
    assert (done.code, done.out, done.err) == (Exit.INTERRUPTED, "", "")
    assert file.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl", "data"]


@pytest.mark.usefixtures("directory")
def test_export_into_a_named_pipe(llcuda: Llcuda, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_bytes)
        assert llcuda("export", "-o", str(pipe)).code == 0
        assert read.result().count(b"\n") == 23
    assert pipe.is_fifo()
