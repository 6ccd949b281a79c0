"""tools/bench_peers.py as it is called: help, what is not installed, a tool that fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools import bench_peers
from tools.peers import install
from tools.peers.adapters import PROGRAMS, Program
from tools.peers.cases import CASES, Case
from tools.peers.install import NotInstalledError
from tools.peers.runs import Bench

EMPTY = json.dumps({"format": "llcuda-peers", "runs": []})
CASE = Case("fixed", "title", "fixed:0.01", 4, 50, 0.1, "why", 2)

#: A tool that asks twice by OpenAI's API, and says what GuideLLM's file would.
ASKS = """
import json, sys, urllib.request
words = [word for word in sys.argv if "target=" in word][0]
url = words.partition("target=")[2].partition(",")[0]
path = [word for word in sys.argv if "path=" in word][0].partition("path=")[2]
for _ in range(2):
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": True}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert b"[DONE]" in reply.read()
summary = {"successful": {"mean": 1.0, "count": 2, "percentiles": dict(p50=1, p90=1, p99=1)}}
metrics = dict.fromkeys(("request_latency", "time_to_first_token_ms"), summary)
metrics |= dict.fromkeys(("requests_per_second", "output_tokens_per_second"), summary)
metrics["request_totals"] = {"successful": 2, "incomplete": 0, "errored": 0}
open(path, "w").write(json.dumps({"benchmarks": [{"metrics": metrics}]}))
"""


def script(folder: Path, text: str) -> Path:
    path = folder / "tool"
    path.write_text(f"#!{sys.executable}\n{text}", "utf-8")
    path.chmod(0o755)
    return path


def test_a_run_has_what_was_said_and_what_was_recorded(tmp_path: Path) -> None:
    run = Bench(1, {"guidellm": script(tmp_path, ASKS)}).run(CASE, PROGRAMS["guidellm"])
    assert not run.failed
    assert run.said is not None
    assert run.record is not None
    assert run.said.latency["p99"] == 1
    assert run.record.arrived == 2
    assert (run.record.latency["mean"] or 0) >= 0.01
    assert run.command[:2] == ["guidellm", "run"]
    assert not any(str(tmp_path) in word or "127.0.0.1" in word for word in run.command)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys; print('no such option'); sys.exit(3)", "exit code 3: no such option"),
        ("", "GuideLLM wrote no guidellm.json"),
    ],
)
def test_a_tool_that_fails_is_told_with_its_last_words(
    tmp_path: Path, text: str, told: str
) -> None:
    run = Bench(1, {"guidellm": script(tmp_path, text)}).run(CASE, PROGRAMS["guidellm"])
    assert told in run.failed
    assert "\n" not in run.failed
    assert run.said is None


def test_a_tool_that_is_not_there(tmp_path: Path) -> None:
    run = Bench(1, {"aiperf": tmp_path / "none"}).run(CASE, PROGRAMS["aiperf"])
    assert "did not start: No such file" in run.failed


def test_what_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    assert bench_peers.main(["--tools", "guidellm"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "guidellm==" in error
    assert "--install" in error


def test_another_version_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    place = install.environment(PROGRAMS["aiperf"])
    place.mkdir()
    (place / "installed").write_text("aiperf==0.1.0", "utf-8")
    with pytest.raises(NotInstalledError):
        install.installed(PROGRAMS["aiperf"])
    (place / "installed").write_text(PROGRAMS["aiperf"].requirement, "utf-8")
    assert install.installed(PROGRAMS["aiperf"]) == place / "bin" / "aiperf"


def test_what_cannot_be_installed_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # as without a network
    with pytest.raises(NotInstalledError, match="cannot be installed") as error:
        install.install(Program("none", "None", "no-such-tool==1", "none"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / ".venv-none" / "installed").exists()


def test_what_was_written_is_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "installed", lambda program: script(tmp_path, ASKS))
    monkeypatch.setattr(bench_peers, "CASES", (CASE,))
    written = tmp_path / "peers.json"
    options = ["--tools", "guidellm", "--servers", "fixed", "--json", str(written)]
    assert bench_peers.main(options) == 0
    first = capsys.readouterr().out
    assert "GuideLLM" in first
    assert bench_peers.main(["--show", str(written)]) == 0
    assert capsys.readouterr().out == first


def test_a_file_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "installed", lambda program: script(tmp_path, ASKS))
    monkeypatch.setattr(bench_peers, "CASES", (CASE,))
    written = tmp_path / "peers.json"
    options = ["--servers", "fixed", "--resume", "--json", str(written)]
    assert bench_peers.main([*options, "--tools", "guidellm"]) == 2  # there is none yet
    assert bench_peers.main(["--tools", "guidellm", "--json", str(written)]) == 0
    first = json.loads(written.read_text("utf-8"))["runs"]
    # AIPerf's run fails, since the script writes GuideLLM's file: the next time it is made again.
    assert bench_peers.main([*options, "--tools", "guidellm,aiperf"]) == 1
    assert bench_peers.main([*options, "--tools", "aiperf"]) == 1
    runs = json.loads(written.read_text("utf-8"))["runs"]
    assert runs[0] == first[0]
    assert [run["program"] for run in runs] == ["guidellm", "aiperf"]
    capsys.readouterr()
    assert bench_peers.main([*options, "--tools", "guidellm", "--seed", "2"]) == 2
    assert "another seed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench_peers.main(["--resume"])


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({"format": "other"}), EMPTY])
def test_what_is_no_such_file_is_told(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text(content, "utf-8")
    assert bench_peers.main(["--show", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_peers.main(["--tools", "llcuda", "--json", str(tmp_path / "no" / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("options", [["--tools", "none"], ["--servers", "x"], ["--times", "0"]])
def test_wrong_options(options: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench_peers.main(options)
    assert end.value.code == 2


def test_help_names_every_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_peers.main(["--help"])
    text = capsys.readouterr().out
    assert "example" in text
    assert all(case.name in text for case in CASES)
