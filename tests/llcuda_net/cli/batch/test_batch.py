"""llcuda batch and its files: pipes, nothing to do, the same file twice, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llcuda_net.cli.batch import mpi
from llcuda_net.cli.common import Exit
from llcuda_net.cli.main import main
from tests.support.processes import PATIENCE
from tools import synthetic_upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with synthetic_upstream.running("--rate", "0", "--slots", "8") as url:
        yield url


def batch(given: object, output: object, upstream: str, *more: str) -> int:
    try:
        options = ["-o", str(output), "--upstream", upstream, "--n-predict", "3", *more]
        return main(["batch", str(given), *options])
    except SystemExit as end:
        return int(end.code or 0)


def lines(path: Path) -> list[int]:
    return [json.loads(line)["line"] for line in path.read_text().splitlines()]


def test_a_fifo_is_answered(tmp_path: Path, upstream: str) -> None:
    fifo, output = tmp_path / "fifo", tmp_path / "out"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=('\ufeff"a"\n"b"\n',))
    writer.start()
    assert batch(fifo, output, upstream) == Exit.OK
    writer.join()
    assert lines(output) == [1, 2]


def test_standard_input_is_answered(tmp_path: Path, upstream: str) -> None:
    """A process of its own: what is read is the descriptor, not sys.stdin."""
    command = [sys.executable, "-m", "llcuda_net.cli.main", "batch", "-", "-o", "out"]
    for number, given in enumerate((b'"a"\n"b"', b"")):
        done = subprocess.run(
            [*command, "--upstream", upstream, "--n-predict", "3", "--json"],
            input=given,
            capture_output=True,
            cwd=tmp_path,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=PATIENCE,
        )
        if number == 0:
            assert done.returncode == Exit.OK, done.stderr
            assert json.loads(done.stdout)["written"] == 2
        else:
            assert done.returncode == Exit.USAGE
            assert b"error: standard input holds no prompt: there is nothing to do" in done.stderr
    assert lines(tmp_path / "out") == [1, 2]


@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
@pytest.mark.parametrize("command", ["batch", "mpi"])
def test_nothing_to_do_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, command: str
) -> None:
    given, output = tmp_path / "in", tmp_path / "out"
    given.write_text(content)
    if command == "batch":
        assert batch(given, output, "http://127.0.0.1:1") == Exit.USAGE
    else:
        assert mpi.main(["--input", str(given), "--output", str(output)]) == Exit.USAGE
    assert f"error: {given} holds no prompt: there is nothing to do" in capsys.readouterr().err
    assert not output.exists()


def test_an_input_that_has_become_shorter_is_another(
    tmp_path: Path, upstream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, output = tmp_path / "in", tmp_path / "out"
    given.write_text('"a"\n"b"\n"c"\n')
    assert batch(given, output, upstream) == Exit.OK
    given.write_text('"a"\n')
    assert batch(given, output, upstream) == Exit.USAGE
    assert "another input, or of other parameters (line 3, where" in capsys.readouterr().err
    assert lines(output) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["itself", "hard link", "symbolic link", "waiting"])
def test_the_input_is_never_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    given, output = tmp_path / "in", tmp_path / "out"
    given.write_text('"a"\n')
    if kind == "itself":
        output = given
    elif kind == "hard link":
        output.hardlink_to(given)
    elif kind == "symbolic link":
        output.symlink_to(given)
    else:
        given = given.rename(tmp_path / "out.waiting")
    assert batch(given, output, "http://127.0.0.1:1") == Exit.USAGE
    assert "the input and the output are the same file" in capsys.readouterr().err
    assert given.read_text() == '"a"\n'


@pytest.mark.parametrize("output", ["fifo", "-", "/dev/null", "/dev/full"])
def test_results_go_to_a_file_that_can_be_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "in").write_text('"a"\n')
    path = tmp_path / output if output == "fifo" else output
    assert batch(tmp_path / "in", path, "http://127.0.0.1:1") == Exit.USAGE
    assert "give a file" in capsys.readouterr().err


def test_the_ids_that_come_again_are_noted(
    tmp_path: Path, upstream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "in"
    given.write_text('{"raw": "a", "id": "x"}\n{"raw": "b", "id": "x"}\n')
    assert batch(given, tmp_path / "out", upstream, "--json") == Exit.OK
    out, err = capsys.readouterr()
    assert "1 of the lines have the id of an earlier line (line 2 has that of line 1)" in err
    assert json.loads(out)["repeated_ids"] == 1


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("batch", ["--cuda-iters", "5"], "--cuda-iters is of --cuda-post"),
        ("batch", ["--api-key-file", "k"], "--api-key-file is for --upstream"),
        ("mpi", ["--cuda-iters", "5"], "--cuda-iters is of --cuda-post"),
        ("mpi", ["--server", "http://a:1", "--tls"], "--tls is for llcuda-server"),
        ("mpi", ["--server", "http://a:1,http://b:1", "--tls-ca", "f"], "--tls-ca is for"),
        ("mpi", ["--server", "http://a:1", "--token-file", "k"], "--token-file is for"),
        ("mpi", ["--server", "a:1", "--api-key-file", "k"], "--api-key-file is for a llama-server"),
    ],
)
def test_options_without_an_effect_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: list[str],
    said: str,
) -> None:
    given, output, key = tmp_path / "in", str(tmp_path / "out"), tmp_path / "k"
    for file in (given, key):
        file.write_text('"a"\n')
    options = [str(key) if option == "k" else option for option in options]
    if command == "batch":
        code = main(["batch", str(given), "-o", output, *options])
    else:
        code = mpi.main(["--input", str(given), "--output", output, *options])
    assert code == Exit.USAGE
    assert said in capsys.readouterr().err
    assert not Path(output).exists()


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, Exit.TERMINATED), (signal.SIGINT, Exit.INTERRUPTED)]
)
def test_a_signal_ends_the_wait_for_a_pipe(
    tmp_path: Path, number: int, code: int, written: bool
) -> None:
    """Where it waits in open, and where a writer has come, written something and does not end."""
    fifo, folder = tmp_path / "fifo", tmp_path / "temporary"
    os.mkfifo(fifo)
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITS, "batch", str(fifo), "-o", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"opens\n"
    writer = os.open(fifo, os.O_WRONLY) if written else -1
    if written:
        os.write(writer, b'"a"\n')
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (code, b"")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fifo", "temporary"]
    assert not list(folder.iterdir())
    if written:
        os.close(writer)


#: The command, which says when it is about to open its input.
_WAITS = """
import sys
from llcuda_net.batch import input as batch_input
from llcuda_net.cli import main

opened = batch_input._opened

def say(path):
    print("opens", flush=True)
    return opened(path)

batch_input._opened = say
sys.exit(main.main())
"""


def test_a_base_gives_a_speedup(
    tmp_path: Path, upstream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, base = tmp_path / "in", tmp_path / "base.json"
    given.write_text('"a"\n"b"\n')
    assert batch(given, tmp_path / "one", upstream, "--json") == Exit.OK
    base.write_text(capsys.readouterr().out)
    assert batch(given, tmp_path / "two", upstream, "--json", "--base", str(base)) == Exit.OK
    printed = capsys.readouterr()
    found = json.loads(printed.out)["base"]
    assert found["ranks"] == 1
    assert found["speedup"] == pytest.approx(found["efficiency"])
    assert found["differs"] == []
    assert "against" in printed.err
    assert batch(given, tmp_path / "three", upstream, "--base", str(given)) == Exit.USAGE
    assert "is not JSON" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()
