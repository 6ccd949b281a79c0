"""`llcuda bench show|compare|verify`, on records of servers of which every time is known."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from llcuda_net.bench.record.canonical import digest
from llcuda_net.cli.main import main
from tests.support import bench_records

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records of the same, one of a server twice as slow, and one of a throughput."""
    found = tmp_path_factory.mktemp("records")
    bench_records.latency(found, "old.json", seed=1)
    bench_records.latency(found, "same.json", seed=2)
    bench_records.latency(found, "slow.json", seed=3, factor=2.0)
    bench_records.throughput(found, "sweep.json")
    return found


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)

    def call(*arguments: str) -> tuple[int, str]:
        try:
            code = main(["bench", *arguments])
        except SystemExit as error:
            code = int(error.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_show_is_the_table_as_when_it_was_measured(run: Run) -> None:
    code, said = run("show", "old.json", "sweep.json")
    assert code == 0
    assert "old.json: latency, 20" in said
    assert "on a processor, " in said
    assert "poisson arrivals, 40 requests/s" in said
    assert "TTFT  " in said
    assert "concurrency  tokens/s (95 % interval)" in said
    assert "note: the server is on this machine" in said


def test_lines_of_a_table(run: Run) -> None:
    code, said = run("show", "--line", "old.json", "slow.json", "sweep.json")
    assert code == 0
    latency, throughput = said.strip().split("\n\n")
    head, rule, old, slow = latency.splitlines()
    assert head.startswith("| server | model | machine | TTFT p50, ms | TTFT p99, ms |")
    assert head.endswith("| counts | record |")
    assert set(rule) == set("| -")
    assert {line.count(" | ") for line in latency.splitlines()} == {head.count(" | ")}
    assert " | yes | " in old
    assert json.loads(Path("slow.json").read_text())["digest"][:12] in slow
    assert throughput.startswith("| server | model | machine | tokens/s | at |")


def test_a_badge(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "b.svg"
    assert run("show", "--badge", str(file), "old.json") == (0, "")
    tree = ElementTree.parse(file).getroot()
    texts = [each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "fake: TTFT p50"
    assert str(texts[1]).endswith(" ms")
    code, said = run("show", "--badge", str(file), "old.json", "slow.json")
    assert (code, said) == (2, "llcuda bench show: error: --badge and --html take one record\n")


def test_json_and_the_page(run: Run, tmp_path: Path) -> None:
    code, said = run("show", "--json", "old.json", "slow.json")
    assert code == 0
    assert [each["measurement"] for each in json.loads(said)] == ["latency", "latency"]
    page = tmp_path / "p.html"
    assert run("show", "--html", str(page), "sweep.json")[0] == 0
    assert "<svg" in page.read_text()


def test_compare(run: Run) -> None:
    code, said = run("compare", "old.json", "same.json")
    assert code == 0, said
    assert "worse" not in said
    code, said = run("compare", "old.json", "same.json", "slow.json")
    assert code == 1
    same, slow, last = said.strip().split("\n\n")
    assert "worse" not in same
    assert "worse        ttft p50" in slow
    assert "figures, judged together" in last
    code, said = run("compare", "slow.json", "old.json", "--json")
    assert code == 0
    (one,) = json.loads(said)["new"]
    better = {each["figure"]: each["verdict"] for each in one["changes"]}
    assert better["ttft p50"] == "better"


def test_what_differs_hinders_unless_it_is_compared(run: Run, tmp_path: Path) -> None:
    other = json.loads(Path("slow.json").read_text())
    other["machine"]["processor"] = "another"
    other["digest"] = digest(other)
    file = tmp_path / "other.json"
    file.write_text(json.dumps(other))
    code, said = run("compare", "old.json", str(file))
    assert code == 0
    assert "cannot compare: the machines differ: processor a processor and another" in said
    code, said = run("compare", "--across", "old.json", str(file))
    assert code == 1
    assert "note: the machines differ" in said
    assert "worse        ttft p50" in said


def test_the_page_of_several(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    code, _ = run("compare", "--html", str(page), "old.json", "slow.json")
    assert code == 1
    text = page.read_text()
    assert "slow.json" in text
    assert "<svg" in text


def test_verify_one(run: Run) -> None:
    for name in ("old", "sweep"):
        code, said = run("verify", f"{name}.json")
        assert code == 0, said
        assert "ok  it is as its schema says" in said
        assert "ok  it is as it was written" in said
        assert "ok  it does not contradict itself" in said
        assert f"requests in {name}.jsonl" in said
        assert "no  " not in said


def test_what_was_changed_is_found(run: Run, tmp_path: Path) -> None:
    text = Path("old.json").read_text()
    lines = Path("old.jsonl").read_text()
    file, beside = tmp_path / "old.json", tmp_path / "old.jsonl"

    def said_of(changed: dict[str, object], *, sealed: bool) -> str:
        if sealed:
            changed["digest"] = digest(changed)
        file.write_text(json.dumps(changed))
        code, said = run("verify", str(file))
        assert code == 1
        return said

    whole = json.loads(text)
    (path,) = whole["paths"].values()
    beside.write_text(lines)
    assert "its digest is another" in said_of({**whole, "seed": 7}, sealed=False)
    path["metrics"]["ttft"]["p50"]["value"] += 0.1
    path["metrics"]["ttft"]["p50"]["low"] = path["metrics"]["ttft"]["p50"]["high"] = None
    said = said_of(whole, sealed=True)  # whoever computes the digest again is found, too
    assert "metrics/ttft/p50/value" in said
    assert "and the requests give" in said
    beside.write_text(lines.replace('"outcome": "done"', '"outcome": "failed"', 1))
    file.write_text(text)
    code, said = run("verify", str(file))
    assert code == 1
    assert "is not what was written with the document" in said
    beside.unlink()
    code, said = run("verify", str(file))
    assert code == 0
    assert f"--  every request's times are not here: {beside}" in said


def test_whether_two_agree(run: Run) -> None:
    code, said = run("verify", "--within", "30", "old.json", "same.json")
    assert code == 0, said
    assert "ok  they are of the same machine, model, workload and settings" in said
    assert "ok  agree        latency p50" in said
    code, said = run("verify", "old.json", "slow.json")
    assert code == 1
    assert "no  differ       ttft p50" in said
    code, said = run("verify", "old.json", "sweep.json")
    assert code == 1
    assert "no  the old one is of latency, the new one of throughput" in said
    assert run("verify", "--alone", "old.json", "slow.json")[0] == 0
    code, said = run("verify", "--json", "--within", "30", "old.json", "same.json")
    assert code == 0
    found = [json.loads(line) for line in said.splitlines()]
    assert found[0] == {"of": ["old.json"], "ok": True, "said": "it is as its schema says"}
    assert found[-1]["of"] == ["old.json", "same.json"]
    figures = [one["said"] for one in found if one["said"].startswith("agree")]
    assert len({line.index(" -> ") for line in figures}) == 1  # one below the other


def test_what_is_wrong_is_one_line(run: Run, tmp_path: Path) -> None:
    old = tmp_path / "v1.json"
    old.write_text('{"format": "llcuda-measure", "version": 1}')
    cut = tmp_path / "cut.json"
    cut.write_text(Path("old.json").read_text()[:-100])
    for command in ("show", "verify", "compare"):
        more = ["old.json"] if command == "compare" else []
        for file, part in (
            (str(old), "is of version 1, and this tool reads 2"),
            (str(cut), "is not JSON, or was cut off"),
            ("nowhere.json", "cannot read nowhere.json: No such file"),
            ("old.jsonl", "is not JSON"),
        ):
            code, said = run(command, *more, file)
            assert code == 2, said
            assert part in said
            assert len(said.splitlines()) == 1
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({**json.loads(Path("old.json").read_text()), "seed": 9}))
    code, said = run("compare", "old.json", str(changed))
    assert (code, len(said.splitlines())) == (2, 1)
    assert "it was changed after it was written" in said
    assert run("verify", str(changed))[0] == 1
    assert run("verify", "--within", "0", "old.json")[0] == 2
