"""The benchmark of the page: its texts, its figures, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tools import bench_page, synthetic_upstream
from tools.page_bench import frames, show, texts
from tools.page_bench.readers import readers
from tools.page_bench.rig import BenchError, rig
from tools.synthetic.written import words_of

SPREAD = {"median": 1.0, "least": 0.9, "most": 1.1, "count": 3, "low": None, "high": None}
FRAMES = frames.Frames([16.7] * 1980 + [50.0] * 20, [60.0], 4000.0).figures()


def test_figures_of_frames() -> None:
    assert FRAMES == {
        "frames": 2000,
        "p50_ms": 16.7,
        "p95_ms": 16.7,
        "p99_ms": 16.7,
        "longest_ms": 50.0,
        "stutters": 20,
        "long_tasks": 1,
        "longest_task_ms": 60.0,
        "cpu_ms_per_frame": 2.0,
    }
    assert frames.Frames().figures()["p50_ms"] is None


@pytest.mark.parametrize("text", [texts.prose, texts.code])
def test_texts_are_long_enough(text: Any) -> None:
    words = words_of(text(5000))
    assert len(words) >= 5000
    assert "".join(words) == text(5000)


def test_code_is_one_block() -> None:
    assert texts.code(5000).count("```") == 1


def test_all_parts_are_shown() -> None:
    sizes = {"transferred": 1000, "decoded": 3000, "files": 9}
    load = {"paint_ms": SPREAD, "ready_ms": SPREAD, **sizes}
    document = {
        "machine": {"cpu": "a CPU", "cores": 2, "kernel": "6", "python": "3.11"},
        "browser": "Chromium 1",
        "load_before": 0.1,
        "paint": {"repeats": 3, "cold": load, "warm": load},
        "tabs": [
            {
                "certainty": True,
                "tabs": 20,
                "rate": 50.0,
                "repeats": 3,
                "seconds": 8.0,
                "us_per_token": {"nobody": SPREAD, "readers": SPREAD, "tabs": SPREAD},
                "tabs_to_readers": SPREAD,
                "tabs_to_readers_of_reading_alone": None,
            }
        ],
        "answers": [
            {
                "kind": "code",
                "tokens": 9,
                "rate": 50.0,
                **FRAMES,
                "parts": [{**FRAMES, "server_us_per_token": 30.0}],
            }
        ],
        "turns": {
            "turns": 200,
            "repeats": 3,
            "open_ms": SPREAD,
            "scrolling": FRAMES,
            "reached_the_first_turn": False,
            "elements": 1234,
        },
        "history": {
            "entries": 100_000,
            "repeats": 3,
            "http_ms": {"answers, first page": SPREAD},
            "scrolling": {"answers": {**FRAMES, "reached": 5000}},
            "search_in_the_page_ms": {"the": SPREAD},
        },
    }
    said = "\n".join(show.lines(document))
    assert "tabs / readers: 1 (0.9 to 1.1)" in said
    assert "NOT to the first turn" in said
    assert "reading adds: not measured" in said
    assert {*bench_page.PARTS} <= document.keys()


@pytest.mark.parametrize("wrong", [["--only", "paint,tab"], ["--tabs", "many"], ["now"]])
def test_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench_page.main(wrong)
    assert ": error: " in capsys.readouterr().err


def test_the_upstream_says_a_text(tmp_path: Path) -> None:
    path = tmp_path / "text.md"
    path.write_text("One **two**\n\nthree")
    with synthetic_upstream.running("--text", str(path), "--rate", "0") as url:
        body = {"prompt": "x", "n_predict": 5, "stream": True, "n_probs": 2, "return_tokens": True}
        said = httpx.post(f"{url}/completion", json=body).text
    events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: ")]
    assert [one["content"] for one in events[:5]] == [
        "One",
        " **two**",
        "\n\nthree",
        "One",
        " **two**",
    ]
    assert [one["tokens"] for one in events[:4]] == [[256], [257], [258], [256]]
    assert events[0]["completion_probabilities"][0]["token"] == "One"
    assert events[-1]["tokens_predicted"] == 5


@pytest.mark.parametrize("text", ["", None])
def test_an_upstream_without_a_text(
    tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.md"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        synthetic_upstream.main(["--text", str(path)])
    assert "--text" in capsys.readouterr().err


def test_answers_run_and_are_read() -> None:
    with rig(texts.prose(100), rate=100, slots=2) as found:
        answers = [found.begin(f"Question {number}", 30_000) for number in range(2)]
        paths = [f"/v1/generations/{one.removeprefix('resp_')}/events" for _, one in answers]
        made = found.tokens()
        with readers(found.server.address, paths) as some:
            while found.tokens() - made < 20:
                some.read(0.1)
            assert some.bytes > 1000
        for _, one in answers:
            found.stop(one)
        with pytest.raises(BenchError, match="404"):
            found.ask("GET", "/v1/responses/resp_none")
