"""A workload with a name sends the same bytes everywhere, and has the lengths that it cites."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator

import pytest

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer
from llcuda_net.bench.workload.asks import Ask
from llcuda_net.bench.workload.catalogue import WORKLOADS, Workload, find
from llcuda_net.bench.workload.generator import Conversation, Generated, Sizes
from llcuda_net.bench.workload.quantiles import SHARES, Counts, Quantiles, draw
from llcuda_net.bench.workload.texts import WORDS, text
from llcuda_net.errors import ConfigError

#: Of the first 40 sessions of seed 1. Whoever changes what a version sends makes a new version.
HASHES = {
    "agent@1": "13ace57dc01f1bd56ebfd5e73aed42eb",
    "chat@1": "4c76b8682867501810c221f0b8d221e9",
    "code@1": "89b70d93318216de9eb89a4fd6092103",
    "embed@1": "2fe39b8f805b891c1f16d4344e271e74",
    "summarise@1": "1c1b70a77e17ec7511136fe8a2a8b063",
}


def turns(work: Generated, number: int) -> Iterator[Ask]:
    """What a session asks of a server that answers as long as it is meant to."""
    session = work.session(number)
    ask = session.first()
    while True:
        yield ask
        record = Record(number, 0.0)
        record.prompt_tokens, record.tokens = ask.prompt_tokens or 0, ask.max_tokens or 0
        following = session.following(Answer("an answer", "length"), record)
        if following is None:
            return
        assert following[0] >= 0
        ask = following[1]


def everything(work: Generated, count: int) -> list[Ask]:
    return [ask for number in range(count) for ask in turns(work, number)]


def fingerprint(work: Generated) -> str:
    found = hashlib.sha256()
    for number in range(40):
        session = work.session(number)
        if isinstance(session, Conversation):
            found.update(str(session.turns).encode())
        for ask in turns(work, number):
            sent = [ask.prompt, ask.messages, ask.texts, ask.max_tokens, ask.prompt_tokens]
            found.update(json.dumps([*sent, ask.wanted_tokens]).encode())
    return found.hexdigest()[:32]


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_a_version_sends_the_same_bytes_for_ever(workload: Workload) -> None:
    assert fingerprint(Generated(workload, 1)) == HASHES[str(workload)]


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_seeds_and_runs_differ(workload: Workload) -> None:
    work = Generated(workload, 1)
    others = [Generated(workload, 2), work.for_run(1)]
    assert len({fingerprint(each) for each in [work, *others]}) == 3
    assert fingerprint(work.for_run(0)) == fingerprint(work)


def test_every_version_has_a_name_of_its_own_and_is_found_by_it() -> None:
    assert len({str(each) for each in WORKLOADS}) == len(WORKLOADS) == len(HASHES)
    for each in WORKLOADS:
        assert find(str(each)) is each
    assert find("chat").name == "chat"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("talk", "no workload 'talk': it must be one of agent, chat, code, embed, summarise"),
        ("chat@9", "no workload 'chat@9': there is chat@1"),
        ("chat@", "no workload 'chat@': there is chat@1"),
        ("", "no workload ''"),
    ],
)
def test_a_workload_that_is_none(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find(text)


# -- the lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_tables_are_whole_and_rising_and_cited(workload: Workload) -> None:
    tables = [getattr(workload, name) for name in ("first", "later", "answer", "think")]
    for table in [each for each in tables if each is not None]:
        assert len(table.values) == len(SHARES)
        assert list(table.values) == sorted(table.values)
        assert table.values[0] > 0
        assert table.source.startswith(("Azure", "Mooncake", "the mean", "assumed: "))
    assert json.dumps(workload.as_dict(), allow_nan=False)


def test_what_is_drawn_has_the_tables_quantiles() -> None:
    """Shares of 20,000 draws differ from the true ones by under four standard errors, 0.014."""
    for workload in WORKLOADS:
        drawn = [workload.first.at(draw("test", str(workload), n)) for n in range(20_000)]
        for share in (0.1, 0.5, 0.9, 0.95):
            value = workload.first.at(share)
            if value == workload.first.values[-1]:
                continue  # where it is cut off, all that is longer is as long
            below = sum(each <= value for each in drawn) / len(drawn)
            assert below == pytest.approx(share, abs=0.014)
        assert statistics.fmean(drawn) == pytest.approx(workload.first.mean, rel=0.05)


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        # The means of the traces themselves, from the data; of agents as published.
        ("code", 2047.8, 27.9),
        ("summarise", 11206.8, 334.1),
        ("agent", 8596, 182),
    ],
)
def test_the_requests_have_the_means_of_their_sources(
    name: str, prompt: float, answer: float
) -> None:
    work = Generated(find(name), 1, Sizes(1000.0))  # the lengths alone: short texts
    asks = everything(work, 1500 if name == "agent" else 6000)  # of the others the tail is heavy
    assert statistics.fmean(a.prompt_tokens or 0 for a in asks) == pytest.approx(prompt, rel=0.06)
    assert statistics.fmean(a.wanted_tokens or 0 for a in asks) == pytest.approx(answer, rel=0.1)


def test_chats_begin_as_long_as_azures_and_have_as_many_turns_as_wildchat() -> None:
    work = Generated(find("chat"), 1, Sizes(1000.0))
    sessions = [list(turns(work, number)) for number in range(1500)]
    first = statistics.fmean(each[0].prompt_tokens or 0 for each in sessions)
    assert first == pytest.approx(1154.7, rel=0.05)
    answers = [ask.wanted_tokens or 0 for each in sessions for ask in each]
    assert statistics.fmean(answers) == pytest.approx(211.1, rel=0.05)
    assert statistics.fmean(len(each) for each in sessions) == pytest.approx(2.5, rel=0.05)


def test_between_two_quantiles_a_table_is_straight() -> None:
    table = Quantiles(tuple(float(n) for n in range(len(SHARES))), "test")
    assert [table.at(share) for share in SHARES] == [float(n) for n in range(len(SHARES))]
    assert table.at(0.525) == pytest.approx(table.at(0.5) / 2 + table.at(0.55) / 2)
    counts = Counts((0.5, 0.75, 1.0), "test")
    assert [counts.at(share) for share in (0, 0.49, 0.5, 0.74, 0.75, 0.999999)] == [
        *(1, 1, 2, 2, 3, 3)
    ]
    assert counts.mean == 0.5 + 0.5 + 0.75


# -- sessions -------------------------------------------------------------------------------------


def test_agents_share_system_prompts_and_get_tool_results() -> None:
    work = Generated(find("agent"), 1)
    firsts = [work.session(number).first().messages or [] for number in range(8)]
    systems = [messages[0]["content"] for messages in firsts]
    assert all(messages[0]["role"] == "system" for messages in firsts)
    assert systems[:4] == systems[4:]
    assert len(set(systems)) == 4
    assert systems[0] == (work.for_run(1).session(0).first().messages or [])[0]["content"]
    assert len(systems[0].split()) == 3300
    assert len({messages[1]["content"] for messages in firsts}) == 8


def test_each_turn_sends_the_whole_conversation_with_the_answers_that_came() -> None:
    work = Generated(find("chat"), 1)
    session = next(s for s in map(work.session, range(99)) if getattr(s, "turns", 0) >= 3)
    first = session.first()
    record = Record(0, 0.0)
    record.prompt_tokens, record.tokens = 50, 20
    following = session.following(Answer("what really came", "stop"), record)
    assert following is not None
    pause, second = following
    assert 0.5 <= pause <= 60
    assert second.messages is not None
    assert first.messages is not None
    assert list(second.messages)[:1] == list(first.messages)
    assert second.messages[1] == {"role": "assistant", "content": "what really came"}
    assert second.messages[2]["role"] == "user"
    new = len(second.messages[2]["content"].split())
    assert second.prompt_tokens == 70 + new


def test_caps_cut_prompts_and_answers_and_end_sessions_before_they_would_exceed_them() -> None:
    for workload in WORKLOADS:
        for ask in everything(Generated(workload, 1, max_tokens=100, max_prompt=600), 50):
            if ask.texts is None:
                assert 1 <= (ask.prompt_tokens or 0) <= 600
                assert 1 <= (ask.max_tokens or 0) <= 100
                assert (ask.wanted_tokens or 0) >= (ask.max_tokens or 0)
                for message in ask.messages or []:
                    assert message["content"]


def test_think_time_is_scaled() -> None:
    work = Generated(find("chat"), 1)

    def pauses(work: Generated) -> list[float]:
        found = []
        for number in range(30):
            session = work.session(number)
            session.first()
            while (following := session.following(Answer("", "stop"), Record(0, 0.0))) is not None:
                found.append(following[0])
        return found

    twice = pauses(Generated(find("chat"), 1, think=2.0))
    assert twice == pytest.approx([2 * each for each in pauses(work)])
    assert len(twice) > 10
    assert set(pauses(Generated(find("chat"), 1, think=0.0))) == {0.0}


def test_sizes_make_words_of_tokens() -> None:
    assert Sizes(1.25, 10).words(260, 10) == 200
    assert Sizes(2.0).words(1) == 1
    plain, measured = Generated(find("code"), 1), Generated(find("code"), 1, Sizes(1.5, 20))
    a, b = plain.session(3).first(), measured.session(3).first()
    assert a.prompt_tokens == b.prompt_tokens
    assert len(b.prompt.split()) == round(((a.prompt_tokens or 0) - 20) / 1.5)
    assert a.prompt.startswith(b.prompt)


def test_texts() -> None:
    assert len(set(WORDS)) == 128 == len(WORDS)
    assert text(50, "a") == " ".join(text(80, "a").split()[:50])
    assert text(50, "a") != text(50, "b")
