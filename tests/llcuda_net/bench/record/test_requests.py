"""Every request's times, written and read back."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from array import array
from pathlib import Path

import pytest

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.record import requests
from llcuda_net.bench.record.privacy import Scrubber
from llcuda_net.bench.record.requests import Part
from llcuda_net.errors import ConfigError

DONE = Record(
    3, 0.5, "server", 0.501, array("d", [0.6, 0.7, 0.75]), 0.75, Outcome.DONE, "", 3, 7, 2,
    phases={"prompt": 1.5},
)  # fmt: skip
NEVER = Record(4, 0.6, outcome=Outcome.FAILED, error="=nobody at box-1.example:9000")
PARTS = [
    Part("concurrency", 2.0, 0.1, 2.0, [DONE]),
    Part("rates", 5.0, 0.1, 2.0, [NEVER, DONE]),
]


def test_lines_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    told = requests.write(file, PARTS, Scrubber(["box-1.example"]))
    assert (told["file"], told["count"]) == ("r.jsonl", 3)
    assert told["runs"][1] == {
        "run": 2, "kind": "rates", "load": 5.0, "begin": 0.1, "end": 2.0, "count": 2,
    }  # fmt: skip
    first, (never, last) = requests.read(file, told["sha256"], told["runs"])
    assert first == [DONE] == [last]
    assert never.error == "=nobody at host-1:9000"
    assert math.isnan(never.sent)
    assert math.isnan(never.ended)
    assert requests.as_dict(never) == {
        **requests.as_dict(NEVER), "error": "=nobody at host-1:9000",
    }  # fmt: skip

    lines = file.read_text().splitlines()
    assert json.loads(lines[0])["chunks"] == [0.6, 0.7, 0.75]
    file.write_text("\n".join(lines[:2]))
    with pytest.raises(ConfigError, match="another SHA-256"):
        requests.read(file, told["sha256"], told["runs"])
    for wrong in ("[]", "{}", "x", '{"run": 9}', '{"run": 1, "number": 1}', "9" * 5000):
        file.write_text(wrong)
        digest = hashlib.sha256(wrong.encode()).hexdigest()
        with pytest.raises(ConfigError, match="line 1: no request"):
            requests.read(file, digest, told["runs"])
    with pytest.raises(ConfigError, match="cannot read"):
        requests.read(tmp_path / "none.jsonl", "", [])


def test_a_spreadsheet(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    requests.write(file, PARTS, Scrubber(["box-1.example"]))
    one, never, _ = csv.DictReader(file.read_text().splitlines())
    assert (one["run"], one["kind"], one["load"], one["outcome"]) == (
        "1", "concurrency", "2.0", "done",
    )  # fmt: skip
    assert (one["chunks"], one["first_chunk"], one["last_chunk"]) == ("3", "0.6", "0.75")
    assert float(one["ttft_ms"]) == pytest.approx(100)
    assert float(one["tpot_ms"]) == pytest.approx(75)
    assert float(one["lag_ms"]) == pytest.approx(1)
    assert (never["ttft_ms"], never["latency_ms"], never["sent"]) == ("", "", "")
    assert never["error"] == "'=nobody at host-1:9000"  # no formula to a spreadsheet


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"writes \.jsonl or \.csv"):
        requests.write(tmp_path / "r.txt", PARTS, Scrubber())
    with pytest.raises(ConfigError, match="cannot write"):
        requests.write(tmp_path / "no" / "r.csv", PARTS, Scrubber())
