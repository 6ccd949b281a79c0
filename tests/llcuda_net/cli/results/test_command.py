"""llcuda results, over a small store that a fixture fills."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from pyarrow import parquet

from llcuda_net.cli import progress
from llcuda_net.cli.common import Exit
from llcuda_net.cli.main import main
from llcuda_net.cli.results import command
from llcuda_net.cli.results.find import newest, newest_with
from llcuda_net.cli.tables import fit, harmless, one_line, width
from llcuda_net.cli.units import bytes_text, iso, moment, size
from llcuda_net.storage.records import Result, Splice, TokenLog
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.storage.records import MODEL, SECOND, START, result

ROOT = Path(__file__).resolve().parents[4]
PATIENCE = 20.0
ODD = "0192f3a4-b5c6-7abc-8def-001122334455"
TWIN = "0192f3a4-b5c6-7abc-9def-001122334455"
OBEYED = "\x1b]0;owned\x07"
#: Written as it is by CSV, whatever is in it.
NASTY = f'A slot{OBEYED}, "quoted",\r\nthen\n日本\u2028 ** \x7f\x9b1m end'


def everything() -> list[Result]:
    plain = [result(number) for number in range(20)]
    odd = result(
        40,
        id=ODD,
        request={
            "messages": [
                {"role": "system", "content": f"Be brief{OBEYED}."},
                {"role": "user", "content": "What is a slow reader?"},
            ],
            "params": {"temperature": 0.5, "n_probs": 2},
        },
        log=TokenLog(
            [NASTY, " more"],
            [1, None],
            [[[1, b"A\xff", -0.5, [[1, b"A\xff", -0.5], [2, b"B", float("-inf")]]]], []],
        ),
        splices=[Splice(1, "http://other:8080")],
        key="my key",
        stop="END",
        on_disconnect=30.0,
        seed=-1,
    )
    failed = result(
        41,
        id=TWIN,
        state="failed",
        model={"name": f"other{OBEYED}"},
        log=TokenLog(),
        error={"code": "upstream_lost", "message": "it went away"},
        reason="",
        usage={},
        seed=None,
    )
    long = result(42, state="cancelled", request={"prompt": "long " * 2000})
    return [*plain, odd, failed, long]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with results, which LLCUDA_DATA_DIR names."""
    directory = tmp_path / "data"
    directory.mkdir()
    store = SqliteStore(directory, write=True)
    store.put(everything())
    while store.update_index():
        pass
    store.close()
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(directory))
    return directory


class Done:
    """What a command did."""

    def __init__(self, code: int, captured: Any) -> None:
        self.code, self.out, self.err = code, captured.out, captured.err

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()  # type: ignore[no-any-return]

    @property
    def objects(self) -> list[Any]:
        assert self.code == Exit.OK, self.err
        return [json.loads(line) for line in self.out.split("\n")[:-1]]


class Llcuda:
    """Runs `llcuda results` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        try:
            code = main(["results", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, self._capsys.readouterr())


@pytest.fixture
def llcuda(capsys: pytest.CaptureFixture[str]) -> Llcuda:
    return Llcuda(capsys)


def spawn(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-m", "llcuda_net.cli.main", *arguments], **options)


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal gets to see of a command."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    env = {**os.environ, "TERM": "xterm", **environment}
    process = spawn(*arguments, stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 65_536):
            seen += data
    except OSError:  # how Linux tells the end
        pass
    os.close(master)
    assert process.wait(PATIENCE) == 0, seen
    return seen.decode().replace("\r\n", "\n")


# -- list -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("directory")
def test_list_is_a_table_newest_first(llcuda: Llcuda) -> None:
    done = llcuda("list", "--limit", "3")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].split() == ["id", "created", "state", "tokens", "model", "prompt"]
    assert [line.split()[0] for line in done.lines[1:]] == ["result-000042", TWIN[:18], ODD[:18]]
    assert "What is a slow reader?" in done.lines[3]
    assert "\x1b" not in done.out


@pytest.mark.usefixtures("directory")
def test_list_filters(llcuda: Llcuda) -> None:
    def ids(*arguments: str) -> list[str]:
        return [one["id"] for one in llcuda("list", "--json", *arguments).objects]

    assert len(ids()) == len(ids("--limit", "0")) == 23
    assert ids("--state", "failed") == [TWIN]
    assert ids("--state", "failed", "--state", "cancelled") == ["result-000042", TWIN]
    assert ids("--model", f"other{OBEYED}") == [TWIN]
    assert ids("--model", "none") == []
    assert ids("--since", iso(START + 40 * SECOND), "--until", iso(START + 42 * SECOND)) == [
        TWIN,
        ODD,
    ]
    assert ids("--since", "1h") == []
    assert ids("--text", '"slow reader"') == [ODD]
    assert ids("--text", "number") == [TWIN, *(f"result-{n:06d}" for n in range(19, -1, -1))]
    assert ids("--text", "number", "--limit", "2", "--until", iso(START + 19 * SECOND)) == [
        "result-000018",
        "result-000017",
    ]
    assert ids("--text", "nowhere") == []


@pytest.mark.usefixtures("directory")
def test_list_of_nothing_says_so_on_stderr(llcuda: Llcuda) -> None:
    done = llcuda("list", "--since", "1h")
    assert (done.code, done.out, done.err) == (0, "", "no results match\n")


def test_long_lists_are_read_page_by_page(directory: Path) -> None:
    store = SqliteStore(directory, write=True)
    same = [result(n, tokens=1, id=f"same-{n:04d}", created=START - SECOND) for n in range(700)]
    store.put(same)
    while store.update_index():
        pass
    want = {one.id for one in [*everything(), *same]}
    found = [one.id for one in newest(store, Query(limit=5))]
    assert len(found) == len(want)
    assert set(found) == want
    found = [one.id for one in newest_with(store, "number", Query())]
    assert len(found) == len(set(found)) == 721
    store.close()


# -- show -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("directory")
def test_show_says_everything(llcuda: Llcuda) -> None:
    done = llcuda("show", ODD)
    assert (done.code, done.err) == (0, "")
    for part in (
        f"result {ODD}",
        "done (stop at 'END')",
        "my key",
        "from token 1 on, at http://other:8080",
        "3,000,000 (3.0 MB)",
        "12.5 ms",
        "temperature  0.5",
        "What is a slow reader?",
        "on disconnect      30.0",
        "level              disk",
    ):
        assert part in done.out
    failed = llcuda("show", TWIN).out
    assert "upstream_lost" in failed
    assert "seed   " not in failed


@pytest.mark.usefixtures("directory")
def test_show_tokens_and_text(llcuda: Llcuda) -> None:
    done = llcuda("show", ODD, "--tokens")
    assert done.lines[-3].split() == ["token", "id", "logprob", "piece"]
    assert done.lines[-2].split()[:3] == ["0", "1", "-0.5000"]
    assert done.lines[-1].split() == ["1", "'", "more'"]
    assert "logprob" not in llcuda("show", "result-000003", "--tokens").lines[-9]
    with spawn("results", "show", ODD, "--text") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, err) == ((NASTY + " more\n").encode(), b"")


@pytest.mark.usefixtures("directory")
def test_show_json_has_every_field(llcuda: Llcuda) -> None:
    (found,) = llcuda("show", "--json", ODD).objects
    want = next(one for one in everything() if one.id == ODD)
    renamed = {"log": {"pieces", "ids", "logprobs", "text"}, "key": {"idempotency_key"}}
    for field in want.__struct_fields__:
        assert renamed.get(field, {field}) <= found.keys()
    assert found["text"] == want.text
    assert found["request"] == want.request
    assert found["created"] == "2023-11-14T22:14:00.000000000Z"
    assert found["ids"] == [1, None]
    assert found["splices"] == [{"position": 1, "upstream": "http://other:8080"}]
    (token,), nothing = found["logprobs"]
    assert (token["bytes"], token["logprob"], nothing) == ([65, 255], -0.5, [])
    assert token["top"][1] == {"id": 2, "text": "B", "bytes": [66], "logprob": None}


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("prefix", [ODD[:20], ODD[:20].upper(), ODD])
def test_a_prefix_of_an_id_is_enough(llcuda: Llcuda, prefix: str) -> None:
    (found,) = llcuda("show", "--json", prefix).objects
    assert found["id"] == ODD


def test_a_prefix_is_found_by_the_time_in_it(directory: Path, llcuda: Llcuda) -> None:
    store = SqliteStore(directory, write=True)
    now = 0x0199_1234_5678
    store.put([result(50, id="01991234-5678-7000-8000-000000000000", created=now * 10**6)])
    store.close()
    for length in (4, 8, 13, 30):
        prefix = "01991234-5678-7000-8000-000000000000"[:length]
        (found,) = llcuda("show", "--json", prefix).objects
        assert found["created"] == iso(now * 10**6)


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (ODD[:13], Exit.USAGE, "2 results begin with"),
        ("result-", Exit.USAGE, "21 results begin with"),
        ("nobody", Exit.REFUSED, "there is no result 'nobody'"),
        ("ffffffffffffffff", Exit.REFUSED, "there is no result"),
        ("", Exit.USAGE, "the id is empty"),
        ("\udcff", Exit.USAGE, "not UTF-8"),
    ],
)
def test_ids_that_name_no_result(llcuda: Llcuda, given: str, code: int, message: str) -> None:
    done = llcuda("show", given)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1


# -- search -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("directory")
def test_search_highlights_what_it_found(llcuda: Llcuda) -> None:
    done = llcuda("search", '"slow reader"', "OR", "nowhere")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].startswith(ODD[:18])
    assert "*slow reader*" in done.out
    assert "\x1b" not in done.out
    (found,) = llcuda("search", "--json", "slow", "slot*").objects
    (begin, end), *_ = found["prompt"]["highlights"]
    assert found["prompt"]["excerpt"][begin:end] == "slow"
    (begin, end), *_ = found["text"]["highlights"]
    assert found["text"]["excerpt"][begin:end] == "slot"
    assert found["id"] == ODD
    assert found["score"] > 0


@pytest.mark.usefixtures("directory")
def test_search_filters_and_errors(llcuda: Llcuda) -> None:
    assert len(llcuda("search", "--json", "number").objects) == 20
    assert len(llcuda("search", "--json", "number", "--limit", "0").objects) == 21
    (found,) = llcuda("search", "--json", "number", "--state", "failed").objects
    assert found["id"] == TWIN
    done = llcuda("search", "nowhere")
    assert (done.code, done.out, done.err) == (0, "", "no results match\n")
    for words in (["search", "?!"], ["list", "--text", "?!"]):
        done = llcuda(*words)
        assert (done.code, done.out) == (Exit.USAGE, "")
        assert "give at least one word" in done.err


def test_search_says_what_it_cannot_find_yet(directory: Path, llcuda: Llcuda) -> None:
    store = SqliteStore(directory, write=True)
    store.put([result(60)])
    store.close()
    assert "not found yet: 1 result" in llcuda("search", "slow").err
    assert "not found yet: 1 result" in llcuda("list", "--text", "slow").err


# -- export -----------------------------------------------------------------------------------


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
            text = "" if value is None else str(value)
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


def test_an_export_that_fails_leaves_what_was_there(
    directory: Path, llcuda: Llcuda, tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    file.write_text("as it was")
    damage(directory)
    done = llcuda("export", "-o", str(file))
    assert done.code == Exit.REFUSED
    assert done.err.count("\n") == 1
    assert file.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl", "data"]


# -- verify -----------------------------------------------------------------------------------


def damage(directory: Path) -> None:
    """Cut the one long content short, and alter one result."""
    db = apsw.Connection(str(directory / "results.db"))
    db.execute("UPDATE bodies SET data = substr(data, 1, 20)")
    db.execute("UPDATE results SET finished = finished + 1 WHERE id = 'result-000007'")
    db.close()


def test_verify(directory: Path, llcuda: Llcuda) -> None:
    done = llcuda("verify")
    assert (done.code, done.err) == (0, "")
    assert done.out == "24 contents, all as they were stored\n"
    (found,) = llcuda("verify", "--json").objects
    assert found == {"ok": True, "checked": 24, "problems": []}
    damage(directory)
    done = llcuda("verify")
    assert done.code == Exit.REFUSED
    assert "result-000007 it is not what was stored: its hash differs" in done.lines
    assert len(done.lines) == 3  # the body, the result that needs it, and the altered one
    assert done.err == "3 problems in 24 contents\n"
    done = llcuda("verify", "--json")
    assert done.code == Exit.REFUSED
    assert "result-000007" in [one["id"] for one in json.loads(done.out)["problems"]]


# -- prune ------------------------------------------------------------------------------------


def test_a_dry_run_deletes_nothing(directory: Path, llcuda: Llcuda) -> None:
    before = llcuda("export").out
    done = llcuda("prune", "--older-than", iso(START + 10 * SECOND))
    assert done.code == 0
    assert done.out.startswith("10 results (")
    assert "nothing was deleted: to do so, add --yes" in done.out
    (found,) = llcuda("prune", "--json", "--older-than", iso(START + 10 * SECOND)).objects
    assert (found["deleted"], found["results"]) == (False, 10)
    assert found["newest"] == iso(START + 9 * SECOND)
    assert "nothing would go" in llcuda("prune", "--max-size", "1TB", "--yes").out
    assert llcuda("export").out == before
    assert directory.exists()


def test_prune_deletes_beside_a_writer(directory: Path, llcuda: Llcuda) -> None:
    writer = SqliteStore(directory, write=True)
    done = llcuda("prune", "--older-than", iso(START + 10 * SECOND), "--yes")
    assert done.code == 0, done.err
    assert done.out.startswith("deleted 10 results (")
    assert len(llcuda("list", "--json").objects) == 13
    (found,) = llcuda("prune", "--max-size", "2kB", "--yes", "--json").objects
    assert found["deleted"]
    left = llcuda("list", "--json").objects
    assert 0 < sum(one["bytes"] for one in left) <= 2000
    assert left[0]["id"] == "result-000042"
    writer.put([result(70)])
    writer.close()
    assert llcuda("verify").code == 0


@pytest.mark.usefixtures("directory")
def test_prune_wants_to_know_what(llcuda: Llcuda) -> None:
    done = llcuda("prune", "--yes")
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "--older-than 30d" in done.err
    assert len(llcuda("list", "--json").objects) == 23


# -- stats ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("directory")
def test_stats(llcuda: Llcuda) -> None:
    (found,) = llcuda("stats", "--json").objects
    assert found["results"] == 23
    assert found["states"] == {"done": 21, "failed": 1, "cancelled": 1}
    assert found["models"][MODEL["name"]] == 22
    assert (found["oldest"], found["newest"]) == (iso(START), iso(START + 42 * SECOND))
    assert sum(day["results"] for day in found["days"]) == 23
    assert found["unindexed"] == 0
    done = llcuda("stats")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].split() == ["results", "23"]
    assert "2023-11-14" in done.out
    assert "\x1b" not in done.out


# -- the store ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "x"],
        ["search", "x"],
        ["export"],
        ["verify"],
        ["stats"],
        ["prune", "--max-size", "1GB", "--yes"],
    ],
)
def test_nothing_to_open(llcuda: Llcuda, tmp_path: Path, command: list[str]) -> None:
    done = llcuda(*command, "--data-dir", str(tmp_path / "none"))
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.err.startswith(f"llcuda results {command[0]}: error: there are no results in")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_no_store(llcuda: Llcuda, tmp_path: Path) -> None:
    (tmp_path / "results.db").write_bytes(b"no database at all " * 500)
    done = llcuda("list", "--data-dir", str(tmp_path))
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "damaged" in done.err
    assert done.err.count("\n") == 1


def test_the_data_directory_comes_from_option_environment_or_platform(
    directory: Path, llcuda: Llcuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(tmp_path / "none"))
    assert llcuda("list").code == Exit.USAGE
    assert llcuda("list", "--data-dir", str(directory)).code == 0
    monkeypatch.delenv("LLCUDA_DATA_DIR")
    monkeypatch.setattr("llcuda_net.storage.data_dir.default_directory", lambda: directory)
    assert llcuda("list").code == 0


def test_it_reads_while_another_writes(directory: Path, llcuda: Llcuda) -> None:
    writer = apsw.Connection(str(directory / "results.db"))
    writer.execute("BEGIN IMMEDIATE; DELETE FROM results WHERE id = 'result-000001'")
    for words in (["list"], ["show", ODD], ["search", "slow"], ["export"], ["verify"], ["stats"]):
        assert llcuda(*words).code == 0
    writer.execute("ROLLBACK")
    writer.close()


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--since", "yesterday"], "must be an age"),
        (["list", "--until", "99999999999w"], "too far away"),
        (["list", "--until", "9999-01-01"], "too far away"),
        (["list", "--limit", "-1"], "must be a whole number"),
        (["list", "--state", "running"], "invalid choice"),
        (["prune", "--max-size", "much"], "must be a size"),
        (["prune", "--max-size", "9" * 20], "too large"),
        (["show"], "required: ID"),
        (["show", "x", "--json", "--text"], "not allowed with"),
        (["search"], "required: WORD"),
        (["nothing"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_usage_is_one_line(llcuda: Llcuda, arguments: list[str], message: str) -> None:
    done = llcuda(*arguments)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_times_and_sizes() -> None:
    now = time.time_ns()
    for text, seconds in (("45s", 45), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600)):
        assert abs(now - moment(text) - seconds * 10**9) < 5 * 10**9
    assert moment("1970-01-02T00:00:00Z") == 86_400 * 10**9
    assert moment("1970-01-02T00:00:00.000001+00:00") == 86_400 * 10**9 + 1000
    assert moment("2026-11-01") == moment("2026-11-01T00:00")
    assert [size(text) for text in ("5", "1kB", "2GB", "1.5GiB", "3m", "7B")] == [
        5,
        1000,
        2 * 10**9,
        3 << 29,
        3_000_000,
        7,
    ]
    assert [bytes_text(n) for n in (0, 999, 1000, 999_949, 999_950, 2 * 10**9, 10**16)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "2.0 GB",
        "10000.0 TB",
    ]


def test_cells_are_harmless_and_fit() -> None:
    assert harmless("a\x1b[1m\tb\nc\x9b\u202e") == "a�[1m\tb\nc��"
    assert one_line("a\r\nb\tc\x00") == "a  b c�"
    assert (width("日本e\u0301"), width("abc")) == (5, 3)
    assert (fit("日本語", 6), fit("日本語", 5), fit("abc", 2)) == ("日本語", "日本…", "a…")


def test_progress_is_for_terminals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PAUSE", 0)
    for terminal in (False, True):
        monkeypatch.setattr(progress, "is_terminal", lambda _, found=terminal: found)
        with progress.Progress("verified") as shown:
            shown.add(1200)
        with progress.Progress("exported", alone=False) as shown:
            shown.add()
        want = "\r\x1b[Kverified: 1,200\r\x1b[K" if terminal else ""
        assert capsys.readouterr().err == want


# -- the process --------------------------------------------------------------------------------


def test_every_help_is_cheap_and_has_an_example() -> None:
    heavy = ["apsw", "trio", "zstandard", "msgspec", "httpx", "pyarrow", "platformdirs", "asyncio"]
    code = (
        "import sys, contextlib\n"
        "from llcuda_net.cli.main import main\n"
        "for group in ([], ['results'], *(['results', n] for n in sys.argv[1:])):\n"
        "    try: main([*group, '--help'])\n"
        "    except SystemExit as e: assert not e.code\n"
        "    print('----')\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    names = ["list", "show", "search", "export", "verify", "prune", "stats"]
    found = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert found.stderr == "[]\n"
    helps = found.stdout.split("----\n")[:-1]
    assert len(helps) == 9
    assert all("example" in text and "llcuda results" in text for text in helps)


def test_help_is_quick() -> None:
    def once() -> float:
        started = time.perf_counter()
        with spawn("results", "--help") as process:
            assert process.communicate(timeout=PATIENCE)[0]
        return time.perf_counter() - started

    assert min(once() for _ in range(3)) < 0.3


def test_examples_in_help_and_docs_are_right() -> None:
    parser = command.make_parser()
    commands = next(a for a in parser._actions if a.dest == "command").choices
    assert commands is not None
    texts = [(ROOT / "docs/results.md").read_text(), parser.epilog or ""]
    texts += [one.epilog or "" for one in commands.values()]  # type: ignore[attr-defined]
    found = [
        match[1]
        for text in texts
        for match in re.finditer(r"^(?:examples?: )? *llcuda results (\w.*)$", text, re.MULTILINE)
    ]
    assert len(found) >= 20
    for example in found:
        words = shlex.split(re.split(r"  +|[|>#]|&&", example)[0])
        if words[0] != "--help":
            parser.parse_args(words)


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["--nothing"]])
def test_what_is_no_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--version"], ["results", "--version"]])
def test_version(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code
    assert re.fullmatch(r"llcuda( results)? \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.usefixtures("directory")
def test_a_terminal_gets_colour_but_nothing_to_obey() -> None:
    seen = on_a_terminal("results", "search", "slow", "slot")
    assert "\x1b[1;33mslow\x1b[0m" in seen
    for words in (
        ["search", "slot"],
        ["list"],
        ["show", ODD],
        ["show", ODD, "--tokens"],
        ["show", ODD, "--text"],
        ["export", "--format", "csv"],
        ["export"],
        ["stats"],
    ):
        seen = on_a_terminal("results", *words, NO_COLOR="1")
        assert {c for c in seen if not c.isprintable()} <= {"\n"}, words
    assert "A slot�]0;owned�" in on_a_terminal("results", "show", ODD, "--text")


@pytest.mark.usefixtures("directory")
def test_a_table_fits_its_terminal() -> None:
    lines = on_a_terminal("results", "list", NO_COLOR="1").splitlines()
    assert max(map(len, lines)) == 100
    assert lines[1].endswith("long lo…")


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["export"]])
def test_a_closed_pipe_ends_it_in_silence(command: list[str]) -> None:
    with spawn("results", *command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == Exit.PIPE
        assert process.stderr.read() == b""


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
def test_export_into_a_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with spawn("results", "export", "-o", str(pipe)) as process:
        assert pipe.read_bytes().count(b"\n") == 23
        assert process.wait(PATIENCE) == 0
    assert pipe.is_fifo()


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
