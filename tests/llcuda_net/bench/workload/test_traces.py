"""Traces with lengths: every line of the three formats is read, or named with what is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from llcuda_net.bench.workload.generator import Sizes
from llcuda_net.bench.workload.load import Plan, Run
from llcuda_net.bench.workload.replays import Replay, schedule
from llcuda_net.bench.workload.traces import BLOCK, Entry, Trace, read
from llcuda_net.errors import ConfigError
from tests.support.bench_targets import Fake

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-17 00:00:00.0000000,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-12 00:00:00.001163+00:00,2162,5
2024-05-12 00:00:01.501163+00:00,2399,6
"""
BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,\
Total tokens,Log Type
5,4a,2.1,ChatGPT,472,18,490,Conversation log
45,,1.0,ChatGPT,1087,0,1087,API log
118,4a,3.0,GPT-4,417,276,693,"Conversation log, old"
"""
MOONCAKE = """\
{"timestamp": 27482, "input_length": 1300, "output_length": 52, "hash_ids": [46, 47, 2353]}
{"timestamp": 30535, "input_length": 1024, "output_length": 26, "hash_ids": [46, 47]}

{"timestamp": 30535, "input_length": 600, "output_length": 1}
"""


def write(folder: Path, content: str | bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_azure_of_both_years(tmp_path: Path) -> None:
    found = read(write(tmp_path, AZURE_2023))
    assert (found.kind, found.total, found.left_out) == ("azure", 3, 0)
    assert [(e.prompt, e.answer) for e in found.entries] == [(374, 44), (396, 109), (879, 55)]
    after = [e.at for e in found.entries]
    assert after == pytest.approx([0, 4.314579, 20653.31941], abs=1e-4)
    found = read(write(tmp_path, "\ufeff\n" + AZURE_2024.replace("\n", "\r\n")))
    assert [e.at for e in found.entries] == pytest.approx([0, 1.5], abs=1e-4)


def test_burstgpt_leaves_failures_out(tmp_path: Path) -> None:
    found = read(write(tmp_path, BURSTGPT))
    assert (found.kind, found.total, found.left_out) == ("burstgpt", 2, 1)
    assert [(e.at, e.prompt, e.answer) for e in found.entries] == [(0, 472, 18), (113, 417, 276)]


def test_mooncake_has_blocks(tmp_path: Path) -> None:
    found = read(write(tmp_path, MOONCAKE))
    assert (found.kind, found.total) == ("mooncake", 3)
    assert [e.at for e in found.entries] == pytest.approx([0, 3.053, 3.053])
    assert [e.blocks for e in found.entries] == [(46, 47, 2353), (46, 47), None]


def test_a_window(tmp_path: Path) -> None:
    path = write(tmp_path, BURSTGPT)
    found = read(path, begin=10, seconds=200)
    assert [e.at for e in found.entries] == [103]
    assert len(read(path, seconds=113).entries) == 1
    with pytest.raises(ConfigError, match=r"no request .* that window: it is 113 s long"):
        read(path, begin=200)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no trace with lengths: it must be Azure CSV, BurstGPT CSV or Mooncake JSONL"),
        ("a,b,c\n1,2,3\n", "is no trace with lengths"),
        ("[1]\n", "is no trace with lengths"),
        ("1.5\n2.5\n", "is no trace with lengths"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no request"),
        (BURSTGPT.replace(",18,", ",0,").replace(",276,", ",0,"), "holds no request"),
        (AZURE_2023 + "2023-11-17 18:15,1,2\n", "line 5: TIMESTAMP '2023-11-17 18:15' is no date"),
        (AZURE_2023 + "2023-13-17 18:15:00,1,2\n", "line 5: TIMESTAMP '2023-13-17 18:15:00' is no"),
        (AZURE_2023 + "2023-11-17 18:15:00,1\n", "line 5: it has 2 columns, and the head 3"),
        (AZURE_2023 + "2023-11-17 18:15:00,x,2\n", "line 5: ContextTokens 'x' is no number of tok"),
        (AZURE_2023 + "2023-11-17 18:15:00,-1,2\n", "line 5: ContextTokens '-1' is no number"),
        (AZURE_2023 + "2023-11-17 18:15:00,1.5,2\n", "line 5: ContextTokens '1.5' is no number"),
        (AZURE_2023 + "2023-11-17 18:15:00,1e30,2\n", "line 5: ContextTokens '1e30' is no number"),
        (AZURE_2023 + '"2023,1,2\n', "line 5: it is no line of a CSV"),
        (BURSTGPT.replace("118,", "nan,"), "line 4: Timestamp 'nan' is no time"),
        (MOONCAKE + "{]\n", "line 5: it is no JSON object"),
        (MOONCAKE + "[" * 100_000, "line 5: it is no JSON object"),
        (MOONCAKE.replace("27482", "true"), "line 1: timestamp 'True' is no time"),
        (MOONCAKE.replace("[46, 47]", "[46]"), "line 2: 1 hash_ids do not make 1024 tokens in bl"),
        (MOONCAKE.replace("[46, 47]", '"x"'), "line 2: hash_ids is no list of whole numbers"),
        (MOONCAKE.replace("[46, 47]", "[46, 4.5]"), "line 2: hash_ids is no list of whole"),
        (MOONCAKE.replace("1024", '"many"'), "line 2: input_length 'many' is no number of tokens"),
        (b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read(write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the trace .*: No such file"):
        read(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"cannot read the trace .*: Is a directory"):
        read(tmp_path)


# -- properties -----------------------------------------------------------------------------------

ENTRIES = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 4000), st.integers(1, 4000)),
    min_size=1,
    max_size=30,
)
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def as_azure(entries: list[tuple[int, int, int]]) -> str:
    def moment(ms: int) -> str:
        seconds, ms = divmod(ms, 1000)
        days, seconds = divmod(seconds, 86_400)
        rest = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}0000"
        return f"2023-11-{days + 1:02} {rest}"

    rows = [f"{moment(at)},{prompt},{answer}" for at, prompt, answer in entries]
    return "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n"


def as_burstgpt(entries: list[tuple[int, int, int]]) -> str:
    rows = [f"{at / 1e3},,1,GPT-4,{p},{a},{p + a},API log" for at, p, a in entries]
    return "\n".join([BURSTGPT.split("\n")[0], *rows])


def as_mooncake(entries: list[tuple[int, int, int]]) -> str:
    rows = [
        {
            "timestamp": at,
            "input_length": prompt,
            "output_length": answer,
            "hash_ids": list(range(math.ceil(prompt / BLOCK))),
        }
        for at, prompt, answer in entries
    ]
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize("form", [as_azure, as_burstgpt, as_mooncake])
@FOLDER
@given(entries=ENTRIES)
def test_what_was_written_is_read_in_order_of_time(
    tmp_path: Path, form: object, entries: list[tuple[int, int, int]]
) -> None:
    entries = [(at % (20 * 86_400_000), prompt, answer) for at, prompt, answer in entries]
    found = read(write(tmp_path, form(entries)))  # type: ignore[operator]
    inorder = sorted(entries, key=lambda entry: entry[0])
    start = inorder[0][0]
    assert [e.at for e in found.entries] == pytest.approx(
        [(at - start) / 1e3 for at, _, _ in inorder], abs=1e-4
    )
    assert [(e.prompt, e.answer) for e in found.entries] == [e[1:] for e in inorder]
    assert found.entries[0].at == 0


@FOLDER
@given(
    form=st.sampled_from([AZURE_2023, AZURE_2024, BURSTGPT, MOONCAKE]),
    cuts=st.lists(st.tuples(st.integers(0, 300), st.text(max_size=4)), max_size=4),
)
def test_no_file_is_anything_but_a_trace_or_one_line_of_what_is_wrong(
    tmp_path: Path, form: str, cuts: list[tuple[int, str]]
) -> None:
    for place, put in cuts:
        form = form[:place] + put + form[place + len(put) :]
    path = write(tmp_path, form.encode("utf-8", "surrogatepass"))
    try:
        found = read(path)
    except ConfigError:
        return
    assert found.entries
    assert all(e.at >= 0 and e.prompt >= 0 and e.answer > 0 for e in found.entries)
    assert [e.at for e in found.entries] == sorted(e.at for e in found.entries)


# -- replay ---------------------------------------------------------------------------------------


def of(*entries: Entry) -> Trace:
    return Trace("mooncake", "trace", entries, 0, len(entries))


def test_equal_blocks_make_equal_prefixes_and_no_others() -> None:
    trace = of(
        Entry(0, 1300, 5, (46, 47, 2353)),
        Entry(1, 1200, 5, (46, 47, 9)),
        Entry(2, 1300, 5, (46, 8, 10)),
        Entry(3, 600, 5),
    )
    work = Replay(trace, 1)
    a, b, c, d = (work.session(number).first().prompt.split() for number in range(4))
    assert [len(each) for each in (a, b, c, d)] == [1300, 1200, 1300, 600]
    assert a[:1024] == b[:1024]
    assert a[1024:1200] != b[1024:]
    assert a[:512] == c[:512]
    assert a[512:1024] != c[512:1024]
    assert d[:10] != a[:10]
    assert work.for_run(1).session(0).first().prompt.split()[:10] != a[:10]
    assert Replay(trace, 1).session(1) == work.session(1)
    assert work.session(5) == work.session(1)


def test_lengths_are_asked_for_and_capped() -> None:
    work = Replay(of(Entry(0, 1300, 500, (1, 2, 3))), 1, Sizes(1.25, 12), 100, 700)
    ask = work.session(0).first()
    assert (ask.prompt_tokens, ask.wanted_tokens, ask.max_tokens) == (1300, 500, 100)
    assert len(ask.prompt.split()) == round((512 - 12) / 1.25) + round((700 - 512) / 1.25)


def test_moments_are_sped_up_and_end_with_the_time() -> None:
    trace = of(*[Entry(float(at), 10, 5) for at in (0, 10, 20, 40)])
    found = schedule(trace, 10)
    assert found.moments == (0, 1, 2, 4)
    assert found.seconds == pytest.approx(4.1)
    assert schedule(trace, 10, 2.5).moments == (0, 1, 2)
    assert schedule(trace, 1, 8).rate == pytest.approx(1 / 8)


async def test_a_replay_sends_at_the_moments_what_the_trace_says(
    autojump_clock: MockClock,
) -> None:
    trace = of(Entry(0, 3, 7), Entry(2, 4, 9), Entry(2, 5, 11))
    fake = Fake()
    run = Run(Plan(schedule(trace, 2), Replay(trace, 1), timeout=5), {"gateway": fake})
    records = await run.run()
    records.sort(key=lambda record: record.number)
    assert [r.sent for r in records] == pytest.approx([0, 1, 1])
    assert [(r.wanted_prompt, r.wanted_tokens) for r in records] == [(3, 7), (4, 9), (5, 11)]
    assert sorted(len(prompt.split()) for prompt in fake.prompts) == [3, 4, 5]
    assert all(r.session is None for r in records)
