"""`llcuda bench latency`, on runs too short to say how much."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.batch import post_process
from tests.llcuda_net.cli.bench.conftest import QUICK, Bench, came_through
from tests.support.chat_server import ChatServer, chunk, ending, in_thread


def test_both_ways(
    tmp_path: Path, upstream: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[tuple[int, int]] = []
    monkeypatch.setattr(  # the kernel itself has tests of its own, and takes seconds to compile
        post_process, "spin", lambda seeds, rounds, backend: worked.append((len(seeds), rounds))
    )
    page = tmp_path / "a.html"
    code, found, said = bench(
        "latency", "--target", upstream, "--direct", upstream, "--rate", "60", "--repeats", "2",
        "--seconds", "0.5", "--cuda-work", "1000", "--cuda-iters", "2", *QUICK, "--html", str(page),
    )  # fmt: skip
    came_through(code, found, said)
    server = found["paths"]["server"]
    assert server["outcomes"]["done"] == server["requests"] > 5
    assert server["tokens"] == 8 * server["requests"]
    assert server["metrics"]["ttft"]["p99"] is None  # too few to say
    assert server["metrics"]["gap"]["count"] == 7 * server["requests"]
    assert found["cost"]["service_ttft"]["pairs"] > 5
    assert found["seed"] == 1
    assert found["tool"] == "llcuda bench latency"
    assert found["command"][:3] == ["llcuda", "bench", "latency"]
    assert found["machine"]["cores"] >= 1
    assert found["post"].startswith("spin, 1,000 numbers, 2 rounds")
    assert server["post"]["count"] == server["requests"]
    assert set(worked) == {(1000, 1), (1000, 2)}
    assert page.read_text().count("<svg") >= 4
    assert "server minus direct, first token" in said
    assert "gateway" not in said

    old = tmp_path / "old.json"
    old.write_text((tmp_path / "found.json").read_text())
    code, found, said = bench(
        "latency", "--target", upstream, "--rate", "60", "--seconds", "0.3", "--repeats", "1",
        *QUICK, "--compare", str(old),
    )  # fmt: skip
    came_through(code, found, said)
    assert "cannot compare: direct differs" in said


def test_a_direct_way_by_the_openai_api(
    upstream: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [chunk("one"), chunk(" two"), ending()]  # without usage
    with in_thread(ChatServer(events, key="secret")) as server:
        monkeypatch.setenv("LLCUDA_DIRECT_KEY", "secret")
        code, found, said = bench(
            "latency", "--target", upstream, "--direct", f"{server.url}/v1", "--direct-model",
            "m2", "--iters", "10", "--repeats", "1", *QUICK,
        )  # fmt: skip
    came_through(code, found, said)
    direct = found["paths"]["direct"]
    assert direct["about"]["version"] == "OpenAI-compatible server (tests)"
    assert direct["about"]["slots"] is None
    assert direct["tokens"] == 2 * direct["requests"] == 10
    assert "5 answers came without `usage`: their tokens are the pieces that came" in said
    assert {asked["model"] for asked in server.asked} == {"m2"}
    assert found["paths"]["server"]["outcomes"]["done"] == 5


def test_a_target_has_a_model_and_a_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ["--iters", "2", "--repeats", "1", *QUICK]
    with in_thread(ChatServer([chunk("one"), ending()], key="secret")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "secret\n")
        place = server.url.removeprefix("http://")
        for target in (
            ("--target", f"{server.url}/v1"),
            ("--server", f"{server.url}/v1"),  # the older name
            ("--target", place, "--api", "openai"),
        ):
            code, found, said = bench("latency", *target, "--model", "m2", *quick)
            came_through(code, found, said)
            assert found["paths"]["server"]["about"]["model"] == "m2"
            assert found["settings"]["model"] == "m2"
        assert {asked["model"] for asked in server.asked} == {"m2"}
        # What has a user of its own gets no key from the environment.
        code, _, said = bench("latency", "--target", f"http://me:x@{place}/v1", *quick)
        assert (code, "another API key" in said) == (1, True), said


def test_a_path_of_v1_is_that_of_the_openai_api(bench: Bench) -> None:
    props = {"total_slots": 2, "default_generation_settings": {"n_ctx": 512}, "model_path": "m"}
    with in_thread(ChatServer([chunk("one"), ending()], props=props)) as server:
        code, found, said = bench(
            "latency", "--target", f"{server.url}/v1", "--iters", "2", "--repeats", "1", *QUICK
        )
    came_through(code, found, said)
    assert found["paths"]["server"]["about"]["api"] == "openai"
    assert "/completion" not in server.paths


def test_a_late_client_is_invalid(upstream: str, bench: Bench) -> None:
    code, found, said = bench(
        "latency", "--target", upstream, "--rate", "50", "--seconds", "0.3", "--warmup", "100ms",
        "--repeats", "1", "--no-self-test", "--max-lag", "0s",
    )  # fmt: skip
    assert code == 1
    assert found["problems"]
    assert "INVALID: run 1: the client could not keep up" in said


def test_what_is_wrong_is_one_line(bench: Bench) -> None:
    for arguments, code in (
        (["--target", "127.0.0.1:1"], 3),
        (["--target", "http://127.0.0.1:1"], 1),
        (["--target", "http://"], 2),
        (["--target", "a:1", "--start", "demo"], 2),
        (["--direct", "started"], 2),
        (["--target", "http://a:1", "--api", "llcuda"], 2),
        (["--target", "a:1", "--model", "m"], 2),
        (["--start", "demo", "--api", "openai"], 2),
        (["--direct-api", "openai"], 2),
        (["--arrivals", "poisson"], 2),
        (["--prompts", "@/nowhere"], 2),
        (["--start", "synthetic"], 2),  # which only the tools of a clone can start
    ):
        found, _, said = bench("latency", *arguments)
        assert found == code, said
        assert len(said.splitlines()) == 1
