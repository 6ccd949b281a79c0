"""What is written is a record: as the schema says, without anything personal, and whole."""

from __future__ import annotations

import copy
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.bench.record import schema, seal
from llcuda_net.bench.report import document
from llcuda_net.errors import ConfigError
from tests.support import bench_records


def test_documents_are_records(tmp_path: Path) -> None:
    for file in (
        bench_records.latency(tmp_path, "a.json", repeats=2),
        bench_records.throughput(tmp_path, "b.json"),
    ):
        found = document.read(file)
        assert document.faults(found) == []
        assert found["served_here"] is True
        assert found["sent"]["described"] == "one prompt"


def test_nothing_personal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "zaphod"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "zaphod")
    monkeypatch.setattr(socket, "gethostname", lambda: "zaphods-box")
    key, prompts = f"{home}/zaphods.key", f"@{home}/zaphod/p.jsonl"
    file = bench_records.latency(
        home, "out.json", repeats=2, server="zaphods-box:9000",
        argv=("--server", "zaphods-box:9000", "--api-key-file", key, "--prompts", prompts),
    )  # fmt: skip
    found = document.read(file)
    text = json.dumps(found) + file.with_suffix(".jsonl").read_text()
    assert "zaphods.key" in text  # a file's own name is told, and nothing of where it is
    assert "zaphod" not in text.replace("zaphods.key", "")
    assert str(tmp_path) not in text
    assert next(seal.abouts(found))["address"] == "host-1:9000"
    assert found["served_here"] is False


def test_a_models_file_is_hashed_where_it_is_here(tmp_path: Path) -> None:
    from importlib import resources

    def told(address: str, file: str) -> dict[str, Any]:
        from llcuda_net.batch.targets.facts import facts

        served = facts("llama-server", "b1", {"file": file})
        found: dict[str, Any] = {"about": {"address": address, "facts": served}, "command": []}
        seal.seal(found)
        model = found["about"]["facts"]["model"]
        return {**model, "why": found["about"]["facts"]["unknown"].get("model.sha256")}

    with resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as demo:
        here = told("127.0.0.1:1", str(demo))
        assert (here["file"], here["why"]) == ("demo.gguf", None)
        assert len(here["sha256"]) == 64
        elsewhere = told("10.1.1.1:1", str(demo))
    assert elsewhere["sha256"] is None
    assert elsewhere["why"] == "its file is not on the machine that measured"
    gone = told("http://localhost:1", str(tmp_path / "gone.gguf"))
    assert (gone["sha256"], gone["why"]) == (None, "its file cannot be read here")
    assert told("localhost:1", "")["why"] == "the server does not say"


def test_changes_are_seen(tmp_path: Path) -> None:
    file = bench_records.latency(tmp_path, "a.json", repeats=2)
    whole = document.read(file)

    def wrong(change: dict[str, Any]) -> str:
        (first, *_) = document.faults({**copy.deepcopy(whole), **change})
        return first

    assert "was changed" in wrong({"when": "2001-01-01T00:00:00+00:00"})
    assert "was changed" in wrong({"seed": 2})
    assert wrong({"more": 1}).startswith("the document: ")
    assert wrong({"seed": "1"}).startswith("seed: ")
    assert wrong({"measurement": "scaling"})
    path = copy.deepcopy(whole["paths"])
    path["server" if "server" in path else "gateway"]["metrics"]["ttft"]["p51"] = None
    assert "metrics/ttft" in wrong({"paths": path})
    text = file.read_text()
    for cut, said in ((text[:-40], "is not JSON, or was cut off"), ("", "is not JSON")):
        file.write_text(cut)
        with pytest.raises(ConfigError, match=said):
            document.read(file)


def test_foreign_and_old_files_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for text, said in (
        ("[]", "is not what a measuring tool"),
        ('{"format": "llcuda-measure", "version": 1}', "is of version 1, and this tool reads 2"),
        ('{"format": "llcuda-measure", "version": {"a": 1}}', "is of version"),
        ('{"format": "llcuda-measure", "version": 2}', "is a required property"),
        ('{"format": "llcuda-measure", "version": 2, "seed": NaN}', "is not JSON"),
        ("\x00", "is not JSON"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said) as raised:
            document.read(file)
        assert len(str(raised.value).splitlines()) == 1
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not JSON"):
        document.read(file)


def test_lines_about_a_document_are_short() -> None:
    found = schema.faults({"format": ["x" * 1000], "version": 2})
    assert found
    assert max(map(len, found)) < 300
    assert all("\n" not in line for line in found)
