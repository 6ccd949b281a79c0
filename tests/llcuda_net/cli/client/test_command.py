"""llcuda-client in this process: what it sends and prints, error lines, exit codes.

The server is a scripted one on loopback.
"""

from __future__ import annotations

import io
import json
import ssl
import sys
from pathlib import Path

import pytest
import trio
import trustme

from llcuda_net.cli.client.command import main
from llcuda_net.cli.client.stats import stats_lines
from llcuda_net.cli.common import Exit
from llcuda_net.client.stream import Result
from tests.support.client.scripted_server import Scripted, listening


def run(*arguments: str) -> int:
    """The exit code, however the command ends."""
    try:
        return main(list(arguments))
    except SystemExit as error:
        return int(error.code or 0)


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


# -- what is sent -------------------------------------------------------------------------------


def test_a_prompt_goes_through_the_chat_template(
    server: Scripted, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("hello wide world") == Exit.OK
    assert capsys.readouterr() == ("hello wide world\n", "")
    request = server.requests()[0]
    assert request.messages == [{"role": "user", "content": "hello wide world"}]
    assert request.prompt is None
    assert request.params == {"n_predict": 2048}


@pytest.mark.usefixtures("address")
def test_flags_become_the_request(server: Scripted, tmp_path: Path) -> None:
    grammar = tmp_path / "g"
    grammar.write_text('root ::= "a"')
    schema = tmp_path / "s"
    schema.write_text('{"type": "object"}')
    assert (
        run(
            *("a prompt", "--raw", "-n", "5", "--temperature", "0.5", "--top-k", "3"),
            *("--top-p", "0.9", "--min-p", "0.1", "--repeat-penalty", "1.1", "--seed", "7"),
            *("--stop", "x", "--stop", "y", "--n-probs", "2", "--timeout", "9.5"),
            *("--grammar", str(grammar), "--json-schema", str(schema)),
            *("--param", "mirostat=2", "--param", 'samplers=["top_k", "temperature"]'),
        )
        == Exit.OK
    )
    request = server.requests()[0]
    assert request.prompt == "a prompt"
    assert request.messages is None
    assert request.timeout == 9.5
    assert request.params == {
        "n_predict": 5,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "seed": 7,
        "stop": ["x", "y"],
        "n_probs": 2,
        "grammar": 'root ::= "a"',
        "json_schema": {"type": "object"},
        "mirostat": 2,
        "samplers": ["top_k", "temperature"],
    }


@pytest.mark.usefixtures("address")
def test_the_prompt_from_a_file_or_standard_input(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes("\ufeffgrüß dich\n".encode())
    assert run("--file", str(file), "--raw") == Exit.OK
    stdin(monkeypatch, "από εδώ".encode())
    assert run("-", "--raw") == Exit.OK
    assert [request.prompt for request in server.requests()] == ["grüß dich\n", "από εδώ"]


@pytest.mark.usefixtures("address")
def test_the_system_message_goes_first(server: Scripted) -> None:
    assert run("q", "--system", "be brief") == Exit.OK
    assert server.requests()[0].messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
    ]


# -- what is printed ----------------------------------------------------------------------------


@pytest.mark.usefixtures("address")
def test_json_is_a_line_an_event(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.queue = (1, 0)
    assert run("a b", "--json") == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[:4] == [
        {
            "event": "accepted",
            "id": "0190-test",
            "position": 1,
            "level": None,
            "epoch": 0,
            "cached": False,
            "wait": None,
            "reason": None,
        },
        {"event": "queue", "position": 0, "wait": None, "reason": None},
        {"event": "piece", "sequence": 0, "text": "a", "id": 0},
        {"event": "piece", "sequence": 1, "text": " b", "id": 1},
    ]
    assert {key: lines[4][key] for key in ("event", "reason", "model")} == {
        "event": "done",
        "reason": "stop",
        "model": "scripted",
    }
    assert len(lines) == 5
    assert run("a b", "--json", "--no-stream") == Exit.OK
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["text"] == "a b"


@pytest.mark.usefixtures("address")
def test_json_tells_of_errors_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("refuse", "--json") == Exit.REFUSED
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "event": "error",
        "code": "overloaded",
        "message": "the queue is full",
        "retry": True,
        "retry_after": 2.0,
    }
    assert err == ("llcuda-client: error: the queue is full (overloaded; try again in 2 s)\n")


@pytest.mark.usefixtures("address")
def test_no_stream_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a b c", "--no-stream") == Exit.OK
    assert capsys.readouterr() == ("a b c\n", "")


@pytest.mark.usefixtures("address")
def test_stats_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a b c", "--stats") == Exit.OK
    out, err = capsys.readouterr()
    assert out == "a b c\n"
    assert [line.split()[:3] for line in err.splitlines()[:5]] == [
        ["queue", "0.5", "ms"],
        ["generation", "100.0", "ms"],
        ["prompt", "20.0", "ms"],
        ["between", "20.5", "ms"],
        ["total", "121.0", "ms"],
    ]
    assert "prompt 3 tokens, 150.0/s" in err
    assert "answer 3 tokens, 20.0/s" in err  # of `generation` alone
    assert "ended by stop; scripted; 0190-test" in err


@pytest.mark.usefixtures("address")
def test_one_newline_ends_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("line\n") == Exit.OK
    assert capsys.readouterr().out == "line\n"


# -- wrong usage --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to send"),
        ([""], "the prompt is empty"),
        ([" \n"], "the prompt is empty"),
        (["a", "b"], "put the prompt in quotes"),
        (["a", "--file", "b"], "not both"),
        (["--file", "/nonexistent"], "cannot read file /nonexistent: No such file"),
        (["--file", "/"], "cannot read file /: Is a directory"),
        (["a", "--raw", "--system", "s"], "--raw leaves out"),
        (["--chat", "--json"], "do not go together"),
        (["--chat", "--raw"], "do not go together"),
        (["--chat", "-"], "not needed"),
        (["a", "-n", "0"], "-n/--max-tokens: must be 1 to 2147483647, or -1 for"),
        (["a", "-n", "-5"], "must be 1 to"),
        (["a", "-n", "9" * 30], "must be 1 to"),
        (["a", "-n", "many"], "must be a whole number, not 'many'"),
        (["a", "--temperature", "nan"], "must be 0 to 100"),
        (["a", "--top-p", "1.5"], "must be 0 to 1, not 1.5"),
        (["a", "--timeout", "0"], "--timeout: must be"),
        (["a", "--param", "x"], "must be NAME=VALUE"),
        (["a", "--param", "prompt=x"], "cannot set prompt"),
        (["a", "--json-schema", "/dev/null"], "is not JSON"),
        (["a", "--grammar", "/nonexistent"], "cannot read grammar"),
        (["a", "--frobnicate"], "--frobnicate"),
        (["a", "--server", "::1:9000"], "needs brackets"),
        (["a", "--server", "host:port"], "no port"),
        (["a", "--server", "http://h:9000"], "URL"),
        (["a", "--token-file", "/nonexistent"], "cannot read token file"),
        (["a", "--token-file", "/dev/null"], "must hold one line"),
        (["a", "--tls-ca", "/nonexistent"], "cannot read /nonexistent"),
        (["a", "--tls-ca", "/dev/null"], "no certificate"),
        (["bad \udcff byte"], "not UTF-8"),
        (["a", "--attach", "b"], "--attach and a prompt do not go together"),
        (["--attach", "b", "-n", "5"], "--attach and --max-tokens do not go together"),
        (["--attach", "b", "--chat"], "--attach and --chat do not go together"),
        (["--attach", "b", "--detach"], "--attach and --detach do not go together"),
        (["--attach", "b", "--cancel", "c"], "--cancel and --attach do not go together"),
        (["--attach", "b", "--on-disconnect", "cancel"], "--attach and --on-disconnect do not"),
        (["--attach", "b", "--from", "-1"], "--from: must be 0 to"),
        (["--attach", "bad \udcff byte"], "the id of --attach is not UTF-8 text"),
        (["--cancel", "b", "--stats"], "--cancel and --stats do not go together"),
        (["--cancel", "b", "--temperature", "0"], "--cancel and --temperature do not"),
        (["a", "--from", "3"], "give --attach ID, too"),
        (["a", "--on-disconnect", "never"], "must be continue, cancel or a number of seconds"),
        (["a", "--on-disconnect", "-1"], "must be continue, cancel or a number of seconds"),
        (["a", "--reconnect-seconds", "soon"], "must be a number, not 'soon'"),
        (["a", "--detach", "--on-disconnect", "5"], "leave --on-disconnect out"),
        (["a", "--detach", "--store", "none"], "nobody could read the answer"),
        (["a", "--detach", "--durability", "memory"], "nobody could read the answer"),
        (["a", "--detach", "--stats"], "--detach prints no answer, so --stats"),
        (["a", "--detach", "--no-stream"], "--detach prints no answer, so --no-stream"),
        (["--chat", "--detach"], "--chat and --detach do not go together"),
        (["--chat", "--idempotency-key", "k"], "--chat and --idempotency-key do not"),
        (["a", "--store", "none", "--durability", "disk"], "--store none keeps nothing"),
        (["a", "--cache"], "--cache is for answers that repeat"),
        (["a", "--cache", "--temperature", "0.5", "--seed", "-1"], "give --temperature 0 or a"),
        (["a", "--durability", "best"], "invalid choice: 'best'"),
        (["a", "--param", "key=x"], "cannot set key"),
        (["a", "--idempotency-key", "bad \udcff byte"], "--idempotency-key is not UTF-8 text"),
        (["a", "--system", "bad \udcff byte"], "the text of --system is not UTF-8 text"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.startswith("llcuda-client: error: ")
    assert err.count("\n") == 1


def test_input_that_is_not_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "latin"
    file.write_bytes(b"caf\xe9")
    assert run("--file", str(file)) == Exit.USAGE
    assert f"file {file} is not UTF-8 text (byte 3)" in capsys.readouterr().err
    stdin(monkeypatch, b"\xff")
    assert run("-") == Exit.USAGE
    assert "standard input is not UTF-8 text (byte 0)" in capsys.readouterr().err
    stdin(monkeypatch, b"")
    assert run("-") == Exit.USAGE
    assert "standard input is empty" in capsys.readouterr().err


# -- the server says no, or is not there ----------------------------------------------------------


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    ("prompt", "code", "told"),
    [
        ("refuse", Exit.REFUSED, "the queue is full (overloaded; try again in 2 s)"),
        ("unknown", Exit.REFUSED, "there is no parameter 'frob' (unknown_parameter)"),
        ("fail", Exit.REFUSED, "it broke (upstream_error)"),
        ("drop", Exit.CONNECT, "closed the connection before the answer was complete"),
        ("truncate", Exit.CONNECT, "was lost in the middle of a frame"),
    ],
)
def test_failures_of_the_server(
    prompt: str, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(prompt) == code
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_the_token(
    server: Scripted,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.token = "right"
    assert run("a") == Exit.REFUSED
    assert "the token is wrong (unauthorized)" in capsys.readouterr().err
    monkeypatch.setenv("LLCUDA_TOKEN", "right")
    assert run("a") == Exit.OK
    file = tmp_path / "token"
    file.write_text("wrong\n")
    assert run("a", "--token-file", str(file)) == Exit.REFUSED
    file.write_text("right\n")
    assert run("a", "--token-file", str(file)) == Exit.OK


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a", "--server", "127.0.0.1:1") == Exit.CONNECT
    assert capsys.readouterr().err == (
        "llcuda-client: error: cannot connect to 127.0.0.1:1: connection refused; "
        "is llcuda-server running there?\n"
    )
    assert run("a", "--server", "no.such.host.invalid:9000") == Exit.CONNECT
    assert "cannot find the host 'no.such.host.invalid'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "is an HTTP server"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "is an SSH server"),
        (b"", "closed the connection without a greeting"),
    ],
)
def test_another_kind_of_server(
    words: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(words)
            await stream.receive_some()

    with listening(serve) as port:
        assert run("a", "--server", f"127.0.0.1:{port}") == Exit.CONNECT
    assert told in capsys.readouterr().err


def test_ipv6(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with listening(server.serve, host="::1") as port:
            assert run("a b", "--server", f"[::1]:{port}") == Exit.OK
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert capsys.readouterr().out == "a b\n"


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def test_tls(
    server: Scripted,
    address: str,
    authority: trustme.CA,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    with listening(server.serve, context) as port:
        tls_address = f"127.0.0.1:{port}"
        assert run("over tls", "--server", tls_address, "--tls-ca", str(pem)) == Exit.OK
        assert capsys.readouterr().out == "over tls\n"
        assert run("a", "--server", tls_address, "--tls") == Exit.CONNECT
        assert "is not trusted" in capsys.readouterr().err
        assert run("a", "--server", tls_address) == Exit.CONNECT
        assert "TLS" in capsys.readouterr().err
        named = f"localhost:{port}"
        assert run("a", "--server", named, "--tls-ca", str(pem)) == Exit.CONNECT
        assert "Hostname mismatch" in capsys.readouterr().err
    assert run("a", "--server", address, "--tls") == Exit.CONNECT
    assert f"{address} does not speak TLS: leave --tls out" in capsys.readouterr().err


def test_json_tells_of_refused_connections(
    server: Scripted, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.token = "right"
    assert run("a", "--json") == Exit.REFUSED
    assert json.loads(capsys.readouterr().out)["code"] == "unauthorized"
    assert run("a", "--json", "--server", "127.0.0.1:1") == Exit.CONNECT
    told = json.loads(capsys.readouterr().out)
    assert (told["event"], told["code"], told["retry"]) == ("error", "no_connection", True)
    assert "connection refused" in told["message"]


def test_a_token_in_the_environment_that_is_not_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLCUDA_TOKEN", "\udcff")
    assert run("a", "--server", "127.0.0.1:1") == Exit.USAGE
    assert capsys.readouterr().err == "llcuda-client: error: LLCUDA_TOKEN is not UTF-8 text\n"


@pytest.mark.parametrize(
    ("tokens", "milliseconds", "told"),
    [(30, 100.0, "30 tokens, 290.0/s"), (30, 0.9, "30 tokens"), (1, 100.0, "1 token")],
)
def test_a_speed_only_where_there_is_one(tokens: int, milliseconds: float, told: str) -> None:
    timings = {"prompt": 9.0, "first_token": 2.0, "generation": milliseconds}
    result = Result("text", "stop", None, {"completion_tokens": tokens}, timings)
    assert f"  answer {told}" in stats_lines(result)


def test_stats_tell_of_splices_and_of_the_store() -> None:
    assert stats_lines(Result("text", "stop", splices=[3, 70], cached=True))[2:4] == [
        "  answered from the store",
        "  continued at token 3, 70, after its server or upstream had stopped",
    ]


@pytest.mark.parametrize("slow", [1.0, 50.0])
def test_times_add_up(slow: float) -> None:
    """Those of a real answer; the prompt is a part of first_token, and says so."""
    spent = {
        "queue": 3.8, "template": 1.4, "connect": 10.6, "prompt": 1270.1, "first_token": 1260.2,
        "generation": 18430.0, "persist": 1.6, "total": 19711.9, "tools": 3.1,
    }  # fmt: skip
    lines = stats_lines(Result("text", "stop", timings={k: v * slow for k, v in spent.items()}))
    rows = {name: (float(value), unit) for name, value, unit, *_ in map(str.split, lines[:10])}
    assert list(rows) == [
        "queue", "template", "connect", "first_token", "prompt", "generation", "persist", "tools",
        "between", "total",
    ]  # fmt: skip
    assert "of first_token, by the llama-server's clock" in lines[4]
    total = rows.pop("total")[0]
    del rows["prompt"]
    added = sum(value / (1000 if unit == "ms" else 1) for value, unit in rows.values())
    assert added == pytest.approx(total, abs=0.005 * len(rows))


def test_no_time_between_the_phases_is_no_line() -> None:
    times = {"queue": 1.0, "first_token": 2.0, "total": 3.0}
    assert [line.split()[0] for line in stats_lines(Result("t", "stop", timings=times))[:4]] == [
        "queue", "first_token", "total", "prompt",
    ]  # fmt: skip
