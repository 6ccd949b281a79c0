"""llcuda batch --api: a server answers a file, over its restarts; and how it ends otherwise."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.batch.api import BatchApi, endpoint_of
from llcuda_net.cli.batch.api import _checked, make_parser
from llcuda_net.cli.common import CommandError, Exit
from llcuda_net.errors import LlcudaError
from tests.support.processes import (
    PATIENCE,
    RunningServer,
    command,
    environment,
    run,
    running_server,
    wait_until,
)

CHAT = "/v1/chat/completions"


def written(path: Path, count: int, *, tokens: int = 5, **changes: Any) -> Path:
    """An input of so many requests."""
    with path.open("w") as file:
        for number in range(count):
            body = {"messages": [{"role": "user", "content": f"Say {number}"}]}
            one: dict[str, Any] = {"custom_id": f"{number}", "method": "POST", "url": CHAT}
            one |= {"body": {**body, "max_tokens": tokens}, **changes}
            file.write(json.dumps(one) + "\n")
    return path


def ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server("--data-dir", str(tmp_path_factory.mktemp("data"))) as server:
        yield server


def api(server: RunningServer, *more: str) -> subprocess.CompletedProcess[str]:
    return run("batch", "--api", f"http://{server.address}", *more)


def test_a_file_is_answered_in_its_order(server: RunningServer, tmp_path: Path) -> None:
    given, output = written(tmp_path / "in", 12), tmp_path / "out"
    done = api(server, str(given), "-o", str(output), "--json")
    assert done.returncode == Exit.OK, done.stderr
    assert ids(output) == [f"{n}" for n in range(12)]
    assert not (tmp_path / "out.errors").exists()
    batch = json.loads(done.stdout)
    assert batch["status"] == "completed"
    assert batch["metadata"] == {"name": "in"}
    lines = done.stderr.splitlines()
    assert lines[0] == f"llcuda batch: the batch is {batch['id']}"
    assert lines[-1] == "llcuda batch: completed: 12 answered"
    again = api(server, "--resume", batch["id"], "-o", str(tmp_path / "again"))
    assert again.returncode == Exit.OK
    assert (tmp_path / "again").read_bytes() == output.read_bytes()


def test_the_url_may_be_left_out(server: RunningServer, tmp_path: Path) -> None:
    given = written(tmp_path / "in", 1)
    where = {"env": {"LLCUDA_SERVER": server.address}}
    done = run("batch", "--api", str(given), "-o", str(tmp_path / "out"), **where)
    assert done.returncode == Exit.OK, done.stderr


def test_requests_that_failed_have_a_file_of_their_own(
    server: RunningServer, tmp_path: Path
) -> None:
    given, output = written(tmp_path / "in", 3), tmp_path / "out"
    bad = {"custom_id": "bad", "method": "POST", "url": CHAT, "body": {"messages": []}}
    given.write_text(json.dumps(bad) + "\n" + given.read_text())
    done = api(server, str(given), "-o", str(output))
    assert done.returncode == Exit.REFUSED
    assert f"completed: 3 answered, 1 not: see {output}.errors" in done.stderr
    assert ids(output) == ["0", "1", "2"]
    assert ids(tmp_path / "out.errors") == ["bad"]


def test_files_of_an_earlier_batch_are_replaced_or_removed(
    server: RunningServer, tmp_path: Path
) -> None:
    output, errors = tmp_path / "out", tmp_path / "out.errors"
    for path in (output, errors):
        path.write_text("of an earlier batch\n")
    wrong = tmp_path / "wrong"
    wrong.write_text(json.dumps({"url": CHAT}) + "\n")
    assert api(server, str(wrong), "-o", str(output)).returncode == Exit.REFUSED
    assert output.exists()  # nothing was asked
    assert errors.exists()
    done = api(server, str(written(tmp_path / "in", 2)), "-o", str(output))
    assert done.returncode == Exit.OK, done.stderr
    assert ids(output) == ["0", "1"]
    assert not errors.exists()
    given = written(tmp_path / "in", 1, body={"messages": []})
    done = api(server, str(given), "-o", str(output))
    assert done.returncode == Exit.REFUSED
    assert ids(errors) == ["0"]
    assert not output.exists()


def test_where_ones_files_may_take_no_more(tmp_path: Path) -> None:
    given, output = written(tmp_path / "in", 200), tmp_path / "out"
    limits = ("--data-dir", str(tmp_path / "data"), "--max-user-files", "90KB")
    with running_server(*limits) as server:
        done = api(server, str(given), "-o", str(output), "--json")
    assert done.returncode == Exit.REFUSED
    assert "and may take 90,000: delete some files first" in done.stderr
    counts = json.loads(done.stdout)["request_counts"]
    assert f"failed: {counts['completed']} answered, {counts['failed']} not" in done.stderr
    assert 10 < counts["completed"] < 190
    assert len(ids(output)) == counts["completed"]
    assert len(ids(tmp_path / "out.errors")) == counts["failed"] == 200 - counts["completed"]


def test_an_input_that_is_wrong(server: RunningServer, tmp_path: Path) -> None:
    given = written(tmp_path / "in", 3)
    given.write_text(given.read_text() + "nonsense\n" * 12)
    done = api(server, str(given), "-o", str(tmp_path / "out"))
    assert done.returncode == Exit.REFUSED
    told = [line for line in done.stderr.splitlines() if ": line " in line]
    assert len(told) == 10
    assert told[0].startswith("llcuda batch: line 4: the line is not valid JSON")
    assert "nothing was asked, and 2 more" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_what_the_server_refuses_is_one_line(server: RunningServer, tmp_path: Path) -> None:
    given = written(tmp_path / "in", 1)
    done = api(server, str(given), "-o", str(tmp_path / "out"), "--window", "soon")
    assert done.returncode == Exit.REFUSED
    assert len(done.stderr.splitlines()) == 1
    assert "completion_window" in done.stderr
    done = api(server, "--resume", "batch_none", "-o", str(tmp_path / "out"))
    assert done.returncode == Exit.REFUSED
    assert "there is no batch 'batch_none' of yours" in done.stderr
    assert "goes on" not in done.stderr  # what was refused does not


def test_ctrl_c_ends_the_command_and_not_the_batch(tmp_path: Path) -> None:
    """Nor does a server that is killed; the batch is resumed, and cancelled."""
    given, output = written(tmp_path / "in", 400, tokens=60), tmp_path / "out"
    folder = str(tmp_path / "data")
    with running_server("--data-dir", folder) as server:
        url = f"http://{server.address}"
        process = subprocess.Popen(
            command("batch", "--api", url, str(given), "-o", str(output)),
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stderr is not None
        id_ = process.stderr.readline().split()[-1]
        with_api = BatchApi(url)
        wait_until(
            lambda: with_api.get(id_)["request_counts"]["completed"] > 2, "some are answered"
        )
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == Exit.INTERRUPTED
        assert f"goes on at the server: llcuda batch --api {url} --resume {id_}" in rest
        assert with_api.get(id_)["status"] == "in_progress"
        with_api.close()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        done = run("batch", "--api", url, "--resume", id_, "-o", str(output), "--patience", "0")
        assert done.returncode == Exit.CONNECT
        assert "cannot be reached" in done.stderr
    with running_server("--data-dir", folder) as server:
        done = api(server, "--resume", id_, "-o", str(output), "--cancel", "--json")
        assert done.returncode == Exit.REFUSED, done.stderr
        batch = json.loads(done.stdout)
        assert batch["status"] == "cancelled"
        counts = batch["request_counts"]
        assert counts["completed"] + counts["failed"] == counts["total"] == 400
        assert len(ids(output)) == counts["completed"] > 2
        assert len(ids(tmp_path / "out.errors")) == counts["failed"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--api"], "give an INPUT, or --resume"),
        (["--api", "in", "--resume", "batch_1"], "one of the two"),
        (["--api", "http://a", "in", "--cancel"], "--cancel goes with --resume"),
        (["--api", "nonsense", "in"], "--api nonsense is no URL"),
        (["--api", "http://a", "-"], "give a file, not standard input"),
        (["--api", "http://a", "in", "--patience", "-1"], "--patience must not be negative"),
        (["--api", "http://a", __file__, "-o", __file__], "are the same file"),
        (["--api", "http://a", "in", "-o", "-"], "not to standard output"),
        (["--api", "http://a", "in", "-o", "/dev/null"], "/dev/null is no regular file"),
    ],
)
def test_arguments_that_make_no_sense(given: list[str], why: str) -> None:
    if "-o" not in given:
        given = [*given, "-o", "out"]
    with pytest.raises(CommandError, match=why):
        _checked(make_parser().parse_args(given))


@pytest.mark.parametrize(
    ("given", "server", "url"),
    [
        (["--api", "https://x/v1", "in"], None, "https://x/v1"),
        (["--api", "host:1", "in"], None, "http://host:1"),
        (["--api", "in"], None, "http://127.0.0.1:9000"),
        (["--api", "in"], "h:2", "http://h:2"),
        (["in", "--api"], None, "http://127.0.0.1:9000"),
    ],
)
def test_which_server(
    given: list[str], server: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLCUDA_SERVER", raising=False)
    if server is not None:
        monkeypatch.setenv("LLCUDA_SERVER", server)
    found = _checked(make_parser().parse_args([*given, "-o", "out"]))
    assert (found.api, found.input) == (url, "in")


def test_the_endpoint_is_that_of_the_first_request() -> None:
    line = b'{"url": "/v1/embeddings"}\n'
    assert endpoint_of(io.BytesIO(b"\xef\xbb\xbf\n \n" + line), "in") == "/v1/embeddings"
    for wrong in (b'"a prompt"\n', b"[]\n", b"{}\n", b'{"url": 1}\n', b"x\n"):
        with pytest.raises(LlcudaError, match="for prompts, leave --api out"):
            endpoint_of(io.BytesIO(wrong), "in")
    with pytest.raises(LlcudaError, match="in holds no request"):
        endpoint_of(io.BytesIO(b"\n"), "in")
