"""`llcuda top` without a terminal: what it reads from a report, remembers, and prints."""

from __future__ import annotations

import copy
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.cli.tables import width
from llcuda_net.cli.top import sections
from llcuda_net.cli.top.grid import Cell, Column, Span, grid, length, plain
from llcuda_net.cli.top.history import Change, History
from llcuda_net.cli.top.sections import ASCII, BLOCKS, snapshot
from llcuda_net.cli.top.view import read
from tests.support.reports import FULL, OLD

SNAPSHOT = """\
llcuda-server 1.2.3  box:9000  up 1 h 2 m
running 11 of 12   waiting 3   1,103 tokens/s   clients 14   streams 31
done 12,033   failed 2   cancelled 31   failovers 3   tokens 1,234,567

UPSTREAM  STATE  SLOTS         MODEL     TOK/S  FAILURES  FAILOVERS  RESTARTS  CONTEXT
gpu-a     up     #####~x. 7/8  qwen-32b    412         4          3         0   32,768
gpu-b     down   ....     0/4  qwen-32b                9          0         2
  connection refused

MODEL               FREE  SLOTS  CONTEXT  UPSTREAMS
qwen-32b (default)     1     12   32,768  gpu-a, gpu-b

USER         RUNNING  WAITING   SERVED  WEIGHT
(anonymous)        7        2       91       1
batch              4        1  883,112    0.25

#  USER         PRIORITY  WAITED   TO WAIT  MODEL     WHY
1  batch        low        3.2 s  1 m 15 s  qwen-32b  all 12 slots are in use
2  (anonymous)  high
and 1 more

STORE
disk   unstored 1   backlog 0   results 12,031   to analyse 12   journal 48.1 MB   \
journal records 88,123   indexed 12,019"""

OLD_SNAPSHOT = """\
llcuda-server 0.0.9  old:9000  up 2.5 s  DRAINING
running 3 of 4   waiting 0   clients 1
done 1   failed 0   cancelled 0   tokens 100

UPSTREAM          STATE  SLOTS     MODEL  RESTARTS
http://only:8080  up     ###. 3/4  demo          0"""


def text(report: Any, server: str = "box:9000", room: int = 1000) -> str:
    return "\n".join(plain(line) for line in snapshot(read(report), server, room, ASCII))


def changed(**changes: Any) -> dict[str, Any]:
    """The full report, its first upstream changed."""
    report = copy.deepcopy(FULL)
    report["upstreams"][0] |= changes
    return report


def test_a_snapshot() -> None:
    assert text(FULL) == SNAPSHOT


def test_an_older_server() -> None:
    assert text(OLD, "old:9000") == OLD_SNAPSHOT


def test_nothing_known() -> None:
    assert text({}) == "llcuda-server  box:9000"


@pytest.mark.parametrize("room", [40, 60, 80, 140])
def test_every_line_fits(room: int) -> None:
    for report in (FULL, OLD, changed(name="a name far too long for any terminal" * 4)):
        for line in snapshot(read(report), "box:9000", room, BLOCKS):
            assert length(line) <= room


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("server", "requests", "upstreams", "models", "users", "queue", "store"),
                    *("name", "state", "slots", "busy", "free", "running", "queued", "wait"),
                    *("slots_detail", "tokens", "uptime", "reason", "position", "served"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(_JSON)
@settings(max_examples=40, deadline=None)
def test_any_report_is_shown_somehow(report: Any) -> None:
    history = History()
    for now in (1.0, 2.0):
        view = history.add(read(report), now)
    for line in snapshot(view, "box:9000", 80, ASCII):
        assert length(line) <= 80
        assert not any(unicodedata.category(c) == "Cc" for c in plain(line))


def test_what_a_terminal_would_obey_is_made_harmless() -> None:
    assert "\x1b" not in text(changed(name="a\x1b[2J", reason="b\x07\nc", state="down"))


def test_slots_by_their_number() -> None:
    states = ["free", "busy", "foreign", "releasing", "something new"]
    detail = [{"id": i, "state": state} for i, state in enumerate(states)]
    assert ".#x~# 4/5" in text(changed(slots_detail=detail))


def test_a_bar_of_many_slots_shows_their_shares() -> None:
    found = text(changed(slots=400, busy=200, foreign=100, releasing=0))
    assert "################xxxxxxxx........ 300/400" in found


def test_counts_that_contradict_each_other() -> None:
    assert "#### 4/4" in text(changed(slots=4, busy=9, foreign=3))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        *((0.04, "0.0 s"), (9.96, "10.0 s"), (10, "10 s"), (59.9, "59 s"), (60, "1 m 0 s")),
        *((3600, "1 h 0 m"), (90_000, "1 d 1 h"), (1e9, "11,574 d 1 h")),
    ],
)
def test_lengths_of_time(seconds: float, expected: str) -> None:
    assert sections.span_text(seconds) == expected


# -- tables -------------------------------------------------------------------------------------

COLUMNS = [
    Column("NAME", least=6),
    Column("FIGURE", right=True),
    Column("MORE", least=4, rank=1),
    Column("EXTRA", rank=4),
]
ROWS: list[list[Cell]] = [["a long name", "1", "something", "x"], ["b", Span("22", "warn"), "", ""]]


def drawn(room: int) -> list[str]:
    return [plain(line) for line in grid(COLUMNS, ROWS, room)]


def test_columns_give_way_by_their_rank() -> None:
    assert drawn(99)[:2] == [
        "NAME         FIGURE  MORE       EXTRA",
        "a long name       1  something  x",
    ]
    assert drawn(36)[1] == "a long name       1  something"  # extras before anything is cut
    assert drawn(20)[1] == "a lon…       1  som…"
    assert drawn(19)[1] == "a long name       1"
    assert drawn(14)[1] == "a lon…       1"
    assert drawn(10)[1] == "a lon…   …"


def test_a_column_without_anything_is_left_out() -> None:
    found = grid(COLUMNS, [["a", "", "", "x"]], 80)
    assert [plain(line) for line in found] == ["NAME  EXTRA", "a     x"]


@given(st.lists(st.lists(st.text(max_size=30), min_size=4, max_size=4)), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_no_line_is_too_long(rows: list[list[str]], room: int) -> None:
    for line in grid(COLUMNS, rows, room):
        assert width(plain(line)) <= room


# -- what is remembered -------------------------------------------------------------------------


def told(history: History) -> list[str]:
    return [change.text for change in history.changes]


def test_changes_from_one_report_to_the_next() -> None:
    history = History()
    history.add(read(FULL), 1.0)
    assert not history.changes
    history.add(read(changed(state="down", reason="it is gone", failovers=5, restarts=1)), 2.0)
    assert told(history) == ["gpu-a is down: it is gone", "gpu-a: 2 failovers", "gpu-a: 1 restart"]
    assert all(change.bad and change.at == 2.0 for change in history.changes)
    history.add(read(changed(failovers=5, restarts=1, model="another")), 3.0)
    assert told(history)[3:] == ["gpu-a is up", "gpu-a has another model: another"]
    assert not any(change.bad for change in list(history.changes)[3:])
    history.add(read({**FULL, "upstreams": FULL["upstreams"][:1]}), 4.0)
    assert "gpu-b was removed" in told(history)
    history.add(read(FULL), 5.0)
    assert told(history)[-1] == "gpu-b was added"


def test_a_server_started_again_begins_anew() -> None:
    history = History()
    history.add(read(FULL), 1.0)
    young = changed(failovers=9) | {"server": {"uptime": 1.0}}
    history.add(read(young), 2.0)
    assert told(history) == ["the server was started again"]


def test_speed_of_a_server_that_tells_none() -> None:
    history = History()
    assert history.add(read(OLD), 1.0).speed is None
    assert history.add(read({**OLD, "tokens": 350}), 3.0).speed == 125
    assert history.add(read({**OLD, "tokens": 350}), 3.0).speed is None
    assert history.add(read({**OLD, "tokens": 90}), 4.0).speed == 0
    assert history.add(read({**OLD, "tokens_per_second": 7.0}), 5.0).speed == 7.0


def test_the_latest_change_is_the_first_line() -> None:
    found = [Change(float(i), f"change {i}", bad=False) for i in range(5)]
    lines = sections.changes(found, 80, 2, lambda at: f"at {at:g}")
    assert [plain(line) for line in lines] == ["RECENT", "at 4  change 4", "at 3  change 3"]


ON_DEMAND = """\
MODEL        LOADED      MEMORY  WAITING  FREE  SLOTS  CONTEXT
a (default)  loaded    500.0 MB              3      4    2,048
b            loading     1.5 GB        2     0      0    4,096
  model b is being loaded, about 3.0 s
c            unloaded    1.0 kB              0      0
  cannot load c.gguf: it is damaged
memory of models: 600.0 MB of 2.0 GB   GPU memory of models: 1.4 GB"""


def test_models_on_demand_say_whether_they_are_there() -> None:
    report = {
        "upstreams": [{"name": "b", "state": "loading", "reason": "model b is being loaded"}],
        "models": [
            {"name": "a", "presence": "loaded", "memory": 500_000_000, "gpu_memory": 0, "free": 3,
             "slots": 4, "context": 2048, "default": True, "reason": "stale", "waiting": 0},
            {"name": "b", "presence": "loading", "memory": 100_000_000, "gpu_memory": 1_400_000_000,
             "free": 0, "slots": 0, "context": 4096, "reason": "model b is being loaded",
             "ready_in": 3.0, "waiting": 2},
            {"name": "c", "presence": "unloaded", "memory": 1000, "gpu_memory": None, "free": 0,
             "slots": 0, "reason": "not loaded", "error": "cannot load c.gguf: it is damaged"},
        ],
        "model_memory": {"memory": 600_000_000, "memory_limit": 2_000_000_000,
                         "gpu_memory": 1_400_000_000, "gpu_memory_limit": None},
    }  # fmt: skip
    view = read(report)
    assert "\n".join(plain(line).rstrip() for line in sections.models(view, 100)) == ON_DEMAND
    # Why it is not loaded stands there once.
    assert len(sections.upstreams(view, 100, ASCII)) == 2


def test_the_servers_of_a_cluster_and_where_the_report_is_from() -> None:
    members = [
        {"name": "a", "number": 3, "address": "10.0.0.1:9000", "started": 1.0, "lease": 4.96},
        {"name": "b", "number": 4, "address": "10.0.0.2:9000", "started": 2.0, "lease": -0.5},
    ]
    cluster = {"name": "a", "number": 3, "standing": "member", "members": members}
    assert text({"cluster": cluster}).splitlines()[-3:] == [
        "SERVER  ADDRESS        LIFE  LEASE  HERE",
        "a       10.0.0.1:9000     3  5.0 s  member",
        "b       10.0.0.2:9000     4   over",
    ]
    fenced = {**cluster, "standing": "fenced", "members": members[1:]}
    assert text({"cluster": fenced}).splitlines()[-1].split() == ["fenced"]
    assert "SERVER" not in text({"cluster": {}})
