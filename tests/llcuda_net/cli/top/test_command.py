"""`llcuda top` in this process, where stdout is no terminal: text, JSON, errors, exit codes."""

from __future__ import annotations

import json

import pytest

from llcuda_net.cli.common import Exit
from llcuda_net.cli.main import main
from tests.llcuda_net.cli.top.test_view import SNAPSHOT
from tests.support.client.scripted_server import Scripted
from tests.support.reports import FULL


def run(*arguments: str) -> int:
    """The exit code, however the command ends."""
    try:
        return main(["top", *arguments])
    except SystemExit as error:
        return int(error.code or 0)


def test_a_snapshot_where_stdout_is_no_terminal(
    server: Scripted, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.report = FULL
    for arguments in ((), (address,), ("--server", address), ("--once",)):
        assert run(*arguments) == Exit.OK
        out, err = capsys.readouterr()
        assert out == SNAPSHOT.replace("box:9000", address) + "\n"
        assert not err


@pytest.mark.usefixtures("address")
def test_json_is_the_report(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.report = {**FULL, "what is to come": [1, 2]}
    assert run("--json") == Exit.OK
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == server.report


def test_the_token_is_sent(server: Scripted, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "sesame"
    assert run(address) == Exit.REFUSED
    monkeypatch.setenv("LLCUDA_TOKEN", "sesame")
    assert run(address) == Exit.OK


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("127.0.0.1:1",), Exit.CONNECT, "cannot connect to 127.0.0.1:1: connection refused"),
        (("a:b",), Exit.USAGE, "'a:b' has no port"),
        (("a", "--server", "b"), Exit.USAGE, "give HOST:PORT or --server, not both"),
        (("--interval", "0"), Exit.USAGE, "must be 0.1 to 3600, not 0"),
        (("--interval", "nan"), Exit.USAGE, "must be 0.1 to 3600, not nan"),
        (("--interval", "x"), Exit.USAGE, "must be a number, not 'x'"),
        (("--token-file", "/no/such"), Exit.USAGE, "cannot read token file /no/such"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert err.count("\n") == 1
