"""Lengths wanted and come, and first turns beside later ones."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.report.parts.sessions import section as of_sessions
from llcuda_net.bench.report.workload import lines
from llcuda_net.bench.statistics.lengths import BARS, lengths, sessions


def turn(session: int, place: int, **given: Any) -> Record:
    record = Record(session, float(place), session=session, turn=place)
    record.outcome = Outcome.DONE
    record.sent, record.ended = place + 0.0, place + 1.0
    record.chunks.extend([place + (0.2 if place else 0.5), place + 0.9])
    record.prompt_tokens, record.tokens = 100 * (place + 1), 10
    record.cached_tokens = 90 * place
    record.wanted_prompt, record.wanted_tokens = 110 * (place + 1), 20
    for name, value in given.items():
        setattr(record, name, value)
    return record


def test_sessions_are_counted_by_how_they_went() -> None:
    records = [
        *(turn(0, 0), turn(0, 1, last=True)),
        *(turn(1, 0), turn(1, 1, outcome=Outcome.TIMEOUT)),
        *(turn(2, 0), turn(2, 1)),
        turn(3, 0, outcome=Outcome.CUT),
        turn(4, 0, last=True),
    ]
    found = sessions(records, [records])
    assert found is not None
    assert {name: found[name] for name in ("begun", "ended", "broken", "open")} == {
        "begun": 5, "ended": 2, "broken": 1, "open": 2,
    }  # fmt: skip
    assert found["first"]["requests"] == 5
    assert found["later"]["requests"] == 3
    assert found["first"]["ttft"]["mean"]["value"] == pytest.approx(500)
    assert found["later"]["ttft"]["mean"]["value"] == pytest.approx(200)
    assert (found["first"]["cached_tokens"], found["first"]["prompt_tokens"]) == (0, 400)
    assert (found["later"]["cached_tokens"], found["later"]["prompt_tokens"]) == (180, 400)
    (section,) = of_sessions(found)
    assert section.text.startswith("5 sessions with a measured turn: 2 ended, 1 were broken")
    heads, rows = section.tables[0]
    assert heads == ["TTFT, ms", "requests", "mean", "prompt tokens from the cache"]
    assert rows == [["first turns", "5", "500", "0%"], ["later turns", "3", "200", "45%"]]
    said = lines({"lengths": lengths(records), "sessions": found, "workload": {"max_tokens": 20}})
    assert said[0] == (
        "tokens wanted and come, mean: prompt 147 and 133; answer 20.0 and 10.0"
        " (at most: answers 20)"
    )
    assert said[1].startswith("sessions: 5 begun, 2 ended, 1 broken")
    assert said[2].startswith("first turns: 5 requests, TTFT mean 500 ms")
    assert said[2].endswith("0% of prompt tokens from the cache")
    assert said[3].endswith("45% of prompt tokens from the cache")


def test_one_session_over_two_paths_is_two() -> None:
    records = [turn(0, 0, path="a", last=True), turn(0, 0, path="b")]
    before = turn(1, 0, last=True, warmup=True)  # of which no turn is measured
    found = sessions([*records, before], [records])
    assert found is not None
    assert (found["begun"], found["ended"], found["open"]) == (2, 1, 1)
    assert found["first"]["requests"] == 2


def test_where_nobody_wanted_anything_nothing_is_said() -> None:
    record = Record(0, 0.0)
    record.outcome = Outcome.DONE
    assert lengths([record]) is None
    assert sessions([record], [[record]]) is None
    assert of_sessions(None) == []
    assert lines({"lengths": None, "sessions": None, "workload": None}) == []


def test_what_the_server_did_not_count_is_not_known() -> None:
    found = lengths([turn(0, 0, prompt_tokens=0, tokens=0, wanted_tokens=None)])
    assert found is not None
    assert found["answer"] is None
    assert found["prompt"]["came"] is None
    said = lines({"lengths": found, "sessions": None, "workload": None})
    assert said[0] == "tokens wanted and come, mean: prompt 110 and not counted"


def test_bars_hold_all_and_percentiles_are_those_that_the_sample_supports() -> None:
    records = [turn(0, 0, tokens=n, wanted_tokens=50) for n in range(1, 101)]
    found = lengths(records)
    assert found is not None
    answer = found["answer"]
    assert answer["edges"][:2] == [1, 6]
    assert len(answer["edges"]) <= BARS + 1
    assert answer["edges"][-1] > 100
    assert answer["came"]["bars"] == [5] * 20
    assert (answer["came"]["p10"], answer["came"]["p50"], answer["came"]["p99"]) == (10, 50, None)
    assert (answer["came"]["min"], answer["came"]["max"]) == (1, 100)
    assert [n for n in answer["wanted"]["bars"] if n] == [100]


def test_what_came_is_known_where_nobody_wanted_any() -> None:
    records = [turn(0, 0, tokens=n, wanted_tokens=None, wanted_prompt=None) for n in (3, 5)]
    found = lengths(records)
    assert found is not None
    assert found["answer"]["wanted"] is None
    assert found["answer"]["came"]["mean"] == 4
    assert lines({"lengths": found, "sessions": None, "workload": None}) == []
