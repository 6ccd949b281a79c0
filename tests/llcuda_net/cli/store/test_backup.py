"""`llcuda store backup` and `restore`: what they print, and their exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from llcuda_net.cli.main import main
from llcuda_net.storage.backup.manifest import NAME, Manifest
from tests.support.processes import command, environment
from tests.support.storage.directories import contents, filled


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return filled(tmp_path / "data")


def test_there_and_back(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, back = tmp_path / "copy", tmp_path / "back"
    assert main(["store", "backup", str(target), "--data-dir", str(directory)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"backed up {directory} to {target}: 3 results, 1 generation under")
    assert said.out.count("\n") == 1
    assert said.err == ""
    assert main(["store", "backup", "--verify", str(target), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["done"], found["results"], found["running"]) == ("verified", 3, 1)
    assert found["bytes"] == Manifest.read(target).size
    assert main(["store", "restore", str(target), "--data-dir", str(back), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**found, "done": "restored"}
    assert main(["results", "list", "--data-dir", str(back), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["backup", "copy"], 2, "exists, and nothing is ever overwritten"),
        (["backup", "no/copy"], 2, "does not exist: make it"),
        (["backup", "--verify", "data"], 2, "is no backup"),
        (["restore", "data", "--data-dir", "back"], 2, "is no backup"),
        (["restore", "copy", "--data-dir", "data"], 2, "is not empty"),
        (["restore", "broken", "--data-dir", "back"], 1, "is not what was backed up"),
        (["backup", "--verify", "broken"], 1, "is not what was backed up"),
        (["backup", "--verify", "newer"], 1, "llcuda 9.8.7 wrote it"),
        (["restore", "newer", "--data-dir", "back"], 1, "llcuda 9.8.7 wrote it"),
    ],
)
def test_what_is_wrong_is_one_line(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(directory))
    for name in ("copy", "broken"):
        assert main(["store", "backup", name]) == 0
    (tmp_path / "broken/data/objects.db").write_bytes(b"")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / NAME).write_text('{"format": 7, "llcuda": "9.8.7"}')
    before = contents(tmp_path)
    capsys.readouterr()
    assert main(["store", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert what in said.err
    assert said.err.count("\n") == 1
    assert contents(tmp_path) == before


def test_a_database_is_named(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LLCUDA_STORE", "postgresql://me:secret@db/llcuda")
    assert main(["store", "backup", str(tmp_path / "copy"), "--data-dir", str(directory)]) == 0
    said = capsys.readouterr().err
    assert "run pg_dump now" in said
    assert "secret" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_by_a_signal_it_leaves_nothing(
    directory: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with (directory / "large").open("wb") as file:
        file.truncate(16 << 30)  # it takes long to read, and nothing on the disk
    (directory / "large").chmod(0o600)
    before = {path for path in tmp_path.rglob("*") if path.suffix not in (".db-shm", ".db-wal")}
    process = subprocess.Popen(
        command("main", "store", "backup", str(tmp_path / "copy"), "--data-dir", str(directory)),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / ".copy.partial"
    while not (partial / "data/large").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert said == ""
    after = {path for path in tmp_path.rglob("*") if path.suffix not in (".db-shm", ".db-wal")}
    assert after == before
