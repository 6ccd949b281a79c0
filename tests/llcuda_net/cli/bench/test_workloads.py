"""Workloads and traces on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llcuda_net.cli.main import main
from tests.llcuda_net.cli.bench.conftest import QUICK, Bench, came_through

TRACE = "".join(
    json.dumps({"timestamp": at * 50, "input_length": 600, "output_length": 5, "hash_ids": [7, at]})
    + "\n"
    for at in range(20)
)


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "workloads"]) == 0
    said = capsys.readouterr().out
    for name in ("chat@1", "summarise@1", "code@1", "agent@1", "embed@1"):
        assert f"{name}: " in said
    assert "Azure LLM inference trace 2023" in said
    assert main(["bench", "workloads", "agent", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["version"], found["system_tokens"]) == ("agent", 1, 3300)
    assert found["think"]["source"].startswith("assumed")
    assert main(["bench", "workloads", "talk"]) == 2
    assert "there is no workload 'talk'" in capsys.readouterr().err


def test_a_chat_with_sessions(upstream: str, bench: Bench) -> None:
    code, found, said = bench(
        "latency", "--target", upstream, "--workload", "chat", "--think", "0.01", "--rate", "20",
        "--max-prompt", "400", "--seconds", "1.2", "--repeats", "2", *QUICK,
    )  # fmt: skip
    came_through(code, found, said)
    assert found["settings"]["workload"] == "chat@1"
    assert found["settings"]["cache_prompt"] is True
    assert found["workload"]["workload"]["name"] == "chat"
    assert found["workload"]["max_tokens"] == 8
    assert found["sessions"]["begun"] > 10
    assert found["sessions"]["later"]["requests"] > 5
    assert found["lengths"]["answer"]["came"]["max"] <= 8
    assert found["lengths"]["answer"]["wanted"]["max"] > 8
    assert "of workload chat@1" in said
    assert "later turns: " in said


def test_a_trace(tmp_path: Path, upstream: str, bench: Bench) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(TRACE)
    code, found, said = bench(
        "latency", "--target", upstream, "--trace", str(path), "--trace-speed", "2", "--repeats",
        "1", "--seconds", "0.9", *QUICK,
    )  # fmt: skip
    came_through(code, found, said)
    summary = found["paths"]["server"]
    assert summary["requests"] == 16  # 20 in 0.5 s at twice the speed, less those of the warm-up
    assert summary["tokens"] == 5 * 16
    assert found["lengths"]["prompt"]["wanted"]["mean"] == 600
    assert "of the mooncake trace trace.jsonl (20 requests)" in said
    code, found, said = bench(
        "latency", "--target", upstream, "--trace", str(path), "--trace-from", "500ms",
        "--trace-seconds", "300ms", "--repeats", "1", *QUICK[2:], "--warmup", "0",
    )  # fmt: skip
    came_through(code, found, said)
    assert found["paths"]["server"]["requests"] == 6
    assert found["settings"]["trace"]["from"] == 0.5


def test_throughput_and_a_single_point_of_scaling(upstream: str, bench: Bench) -> None:
    code, found, said = bench(
        "throughput", "--target", upstream, "--workload", "code", "--max-prompt", "300", "--rates",
        "20", "--concurrency", "1,2", "--seconds", "0.5", "--rounds", "1", *QUICK,
    )  # fmt: skip
    came_through(code, found, said)
    assert found["workload"]["described"] == "workload code@1"
    assert found["lengths"]["prompt"]["wanted"]["max"] <= 300
    assert "tokens wanted and come, mean: prompt" in said
    code, found, said = bench(
        "scaling", "--target", upstream, "--workload", "code", "--max-prompt", "300", "--seconds",
        "0.4", "--inflight", "2", *QUICK,
    )  # fmt: skip
    came_through(code, found, said)
    assert found["settings"]["workload"] == "code@1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workload", "chat", "--prompts", "x"], "give --prompts or --workload, not both"),
        (["--workload", "chat", "--trace", "x"], "give --workload or --trace, not both"),
        (["--workload", "chat@7"], "there is no workload 'chat@7': there is chat@1"),
        (["--max-prompt", "7"], "--max-prompt goes with --workload or --trace"),
        (["--think", "2"], "--think goes with --workload or --trace"),
        (["--think", "-1"], "--think: must be at least 0"),
        (["--trace-speed", "2"], "--trace-speed goes with --trace"),
        (["--trace", "/nowhere"], "cannot read the trace /nowhere: No such file"),
        (["--trace", "x", "--rate", "2"], "it goes without --rate"),
        (["--trace", "x", "--direct", "y"], "it goes without --direct"),
    ],
)
def test_what_goes_with_what(bench: Bench, arguments: list[str], says: str) -> None:
    code, _, said = bench("latency", "--target", "127.0.0.1:1", *arguments)
    assert code == 2
    assert says in said
    assert "Traceback" not in said


def test_embeddings_have_no_tokens_per_second(bench: Bench) -> None:
    for name in ("throughput", "scaling"):
        code, _, said = bench(name, "--target", "127.0.0.1:1", "--workload", "embed")
        assert code == 2
        assert "--workload embed goes with llcuda bench latency" in said
