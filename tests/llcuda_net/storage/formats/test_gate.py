"""What a newer llcuda has written is refused in one line, and nothing of it is changed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from llcuda_net.cli.main import main
from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.storage.data_dir import RESTORING, journal_of, transient_of
from llcuda_net.storage.formats import gate, version_file
from llcuda_net.storage.formats.version_file import FORMATS
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.objects.database import Objects
from llcuda_net.storage.records import encode
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.storage import Storage
from tests.support.processes import run
from tests.support.storage.directories import contents, copied, filled

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("gate") / "data")


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    return copied(original, tmp_path / "data")


def newer_database(name: str) -> Change:
    """Leaves one more migration in a database, in its write-ahead log, as a kill does."""

    def change(directory: Path) -> None:
        path = directory / name
        with closing(apsw.Connection(str(path))) as db:
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            number = db.execute("SELECT max(number) FROM migrations").get + 1
            db.execute("INSERT INTO migrations VALUES (?, 'of tomorrow', 0)", (number,))
        assert path.with_name(f"{name}-wal").stat().st_size

    return change


def newer_file(path: str, header: int = framing.HEADER_SIZE) -> Change:
    """Gives a file of the journal the header of the next format."""

    def change(directory: Path) -> None:
        (file,) = directory.glob(path)
        data = bytearray(file.read_bytes())
        data[7:8] = b"2"
        data[header - 4 : header] = struct.pack("<I", zlib.crc32(data[: header - 4]))
        file.write_bytes(data)

    return change


def newer_number(name: str) -> Change:
    """Has version.json say that a later llcuda has written the folder."""

    def change(directory: Path) -> None:
        formats = {**FORMATS, name: FORMATS.get(name, 0) + 1}
        found = {"llcuda": "9.8.7", "formats": formats, "more": [1]}
        (directory / version_file.NAME).write_text(json.dumps(found))

    return change


#: By what is newer: how it is made, what the line says of it, and who wrote it.
NEWER: dict[str, tuple[Change, str, str]] = {
    "results.db": (newer_database("results.db"), "results.db has version 4", "a newer llcuda"),
    "derived.db": (newer_database("derived.db"), "derived.db has version 5", "a newer llcuda"),
    "objects.db": (newer_database("objects.db"), "objects.db has version 8", "a newer llcuda"),
    "journal": (newer_file("journal/*.journal"), "journal has version 2", "a newer llcuda"),
    "reserve": (newer_file("journal/reserve"), "reserve has version 2", "a newer llcuda"),
    **{
        f"version of {name}": (newer_number(name), "has version", "llcuda 9.8.7")
        for name in (*FORMATS, "something new")
    },
}


def assert_says(message: str, what: str, wrote: str) -> None:
    assert what in message
    assert f": {wrote} wrote it; upgrade llcuda (this is " in message
    assert "this llcuda knows up to" in message
    assert "\n" not in message.strip()


@pytest.mark.parametrize("name", NEWER)
def test_a_server_refuses_what_is_newer_and_changes_nothing(directory: Path, name: str) -> None:
    change, what, wrote = NEWER[name]
    change(directory)
    before = contents(directory)
    with pytest.raises(NewerFormat) as caught:
        trio.run(Storage(directory).run)
    assert_says(str(caught.value), what, wrote)
    assert contents(directory) == before
    assert gate_refuses(directory)


def gate_refuses(directory: Path) -> bool:
    """Whether a check alone refuses, and changes nothing, either."""
    before = contents(directory)
    with pytest.raises(NewerFormat):
        gate.check(directory)
    return contents(directory) == before


@pytest.mark.parametrize("name", ["results.db", "version of journal"])
def test_the_command_says_so_in_one_line_with_code_1(directory: Path, name: str) -> None:
    change, what, wrote = NEWER[name]
    change(directory)
    before = contents(directory)
    done = run("server", "--port", "0", "--store", "sqlite", "--data-dir", str(directory))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert_says(done.stderr, what, wrote)
    assert done.stdout == ""
    assert contents(directory) == before


@pytest.mark.parametrize("arguments", [("list",), ("prune", "--older-than", "1s", "--yes")])
def test_llcuda_results_refuses_it(
    directory: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    newer_database("results.db")(directory)
    before = contents(directory)
    assert main(["results", *arguments, "--data-dir", str(directory)]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert_says(said.err, "results.db has version 4", "a newer llcuda")
    assert contents(directory) == before


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("results.db", lambda directory: SqliteStore(directory, write=True, mend=True)),
        ("derived.db", lambda directory: SqliteStore(directory, write=True)),
        ("objects.db", lambda directory: trio.run(Objects(directory).open)),
    ],
)
def test_what_opens_a_database_refuses_it_as_well(
    directory: Path, name: str, opened: Callable[[Path], Any]
) -> None:
    NEWER[name][0](directory)
    file = {path: data for path, data in contents(directory).items() if path.startswith(name)}
    with pytest.raises(NewerFormat):
        opened(directory)
    after = contents(directory)
    assert {path: after.get(path) for path in file} == file


def test_records_of_a_later_kind_are_no_damage(directory: Path) -> None:
    (segment,) = journal_of(directory).glob("*.journal")
    data = segment.read_bytes()
    seed = framing.Header.decode(data).seed
    seed += sum(1 for _ in framing.scan(data, seed))
    body = encode([11, 1, "of tomorrow"])
    segment.write_bytes(data + framing.frame(body, seed) + body)
    before = contents(journal_of(directory))
    with pytest.raises(NewerFormat, match="has version 11 of records, this llcuda knows up to 10"):
        trio.run(Storage(directory).run)
    assert contents(journal_of(directory)) == before


def test_a_folder_without_the_file_is_of_an_earlier_version(directory: Path) -> None:
    (directory / version_file.NAME).unlink()
    assert gate.check(directory) == {"results.db": 3, "derived.db": 4, "objects.db": 7}

    async def served() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(Storage(directory).run)
            nursery.cancel_scope.cancel()

    trio.run(served)
    file = version_file.read(directory)
    assert file is not None
    assert file.formats == FORMATS
    assert (directory / version_file.NAME).stat().st_mode & 0o77 == 0


def test_a_folder_that_is_not_there_is_none() -> None:
    assert gate.check(Path("/nowhere")) == {}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"llcuda": 1, "formats": {}}', b"\xff"])
def test_a_damaged_file_is_named(directory: Path, data: bytes) -> None:
    (directory / version_file.NAME).write_bytes(data)
    with pytest.raises(StorageError, match=r"version\.json is damaged .*delete it") as caught:
        gate.check(directory)
    assert not isinstance(caught.value, NewerFormat)


def test_no_server_starts_while_a_restore_is_not_done(directory: Path) -> None:
    (directory / RESTORING).mkdir()
    before = contents(directory)
    with pytest.raises(StorageError, match="was cut off: run llcuda store restore again"):
        trio.run(Storage(directory).run)
    assert contents(directory) == before


def test_every_file_has_a_version(directory: Path) -> None:
    """A new kind of file needs a number: its own, or one in version.json."""
    (transient_of(directory) / "x.result").touch()
    (directory / "lock").touch()
    names = {path.relative_to(directory).parts[0] for path in directory.rglob("*")}
    assert names == {
        *gate.SCHEMAS,
        "journal",
        "lock",
        "transient",
        version_file.NAME,
    }
    assert {"directory", "journal", "transient"} == {*FORMATS}
