"""`llcuda results show`."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.storage.records import Switch, TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.cli.results import NASTY, OBEYED, ODD, TWIN, Llcuda, everything
from tests.support.storage.records import result


@pytest.mark.usefixtures("directory")
def test_show_says_everything(llcuda: Llcuda) -> None:
    done = llcuda("show", ODD)
    assert (done.code, done.err) == (0, "")
    for part in (
        f"result {ODD}",
        "done (stop at 'END')",
        "my key",
        "from token 1 on, at http://other:8080",
        "3,000,000 (3.0 MB)",
        "12.5 ms",
        "temperature  0.5",
        "What is a slow reader?",
        "on disconnect      30.0",
        "level              disk",
    ):
        assert part in done.out
    failed = llcuda("show", TWIN).out
    assert "upstream_lost" in failed
    assert "seed   " not in failed


@pytest.mark.usefixtures("directory")
def test_show_tokens_and_text(llcuda: Llcuda) -> None:
    done = llcuda("show", ODD, "--tokens")
    assert done.lines[-3].split() == ["TOKEN", "ID", "LOGPROB", "PIECE"]
    assert done.lines[-2].split()[:3] == ["0", "1", "-0.5000"]
    assert done.lines[-1].split() == ["1", "'", "more'"]
    assert "logprob" not in llcuda("show", "result-000003", "--tokens").lines[-9]
    done = llcuda("show", ODD, "--text")
    assert (done.out, done.err) == (NASTY + " more\n", "")  # no terminal: exactly as it is


@pytest.mark.usefixtures("directory")
def test_show_json_has_every_field(llcuda: Llcuda) -> None:
    (found,) = llcuda("show", "--json", ODD).objects
    want = next(one for one in everything() if one.id == ODD)
    renamed = {"log": {"pieces", "ids", "logprobs", "text"}, "key": {"idempotency_key"}}
    renamed["transient"] = set()  # no stored result is
    for field in want.__struct_fields__:
        assert renamed.get(field, {field}) <= found.keys()
    assert found["text"] == want.text
    assert found["request"] == want.request
    assert found["created"] == "2023-11-14T22:14:00.000000000Z"
    assert found["ids"] == [1, None]
    assert found["splices"] == [{"position": 1, "upstream": "http://other:8080"}]
    (token,), nothing = found["logprobs"]
    assert (token["bytes"], token["logprob"], nothing) == ([65, 255], -0.5, [])
    assert token["top"][1] == {"id": 2, "text": "B", "bytes": [66], "logprob": None}


def test_an_answer_with_a_thought_and_a_tool_call(directory: Path, llcuda: Llcuda) -> None:
    switches = [Switch(0, "reasoning"), Switch(1, "text"), Switch(2, "tool_call", 0, "c1", "add")]
    log = TokenLog([f"hm{OBEYED}", "I add.", '{"a":', "1}"], [None] * 4)
    messages = [{"role": "assistant", "content": "", "tool_calls": [{"id": "c0"}]}]
    one = result(77, log=log, switches=switches, request={"messages": messages})
    store = SqliteStore(directory, write=True)
    store.put([one])
    store.close()
    done = llcuda("show", one.id)
    assert [line for line in done.lines[-8:] if line] == [
        "reasoning",
        "hm\\x1b]0;owned\\x07",
        "text",
        "I add.",
        "tool call add (c1)",
        '{"a":1}',
    ]
    assert '"c0"' in done.out
    assert llcuda("show", one.id, "--text").out == "I add.\n"
    (found,) = llcuda("show", one.id, "--json").objects
    assert (found["text"], found["reasoning"]) == ("I add.", f"hm{OBEYED}")
    assert found["tool_calls"] == [{"id": "c1", "name": "add", "arguments": '{"a":1}'}]
    assert found["switches"][2]["position"] == 2
    (exported,) = [one for one in llcuda("export").objects if one["id"] == found["id"]]
    assert exported["tool_calls"] == found["tool_calls"]


def test_a_conversation_can_be_followed_back(directory: Path, llcuda: Llcuda) -> None:
    one = result(78, request={"messages": [], "params": {"seed": 1}, "previous": ODD})
    store = SqliteStore(directory, write=True)
    store.put([one])
    store.close()
    lines = [line.split() for line in llcuda("show", one.id).lines]
    assert ["previous", ODD] in lines
    assert not any(line[:1] == ["previous"] for line in map(str.split, llcuda("show", ODD).lines))
    (found,) = llcuda("show", one.id, "--json").objects
    assert found["request"]["previous"] == ODD
