"""Results with channels, and of chats with parts and tools: what is stored, listed and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llcuda_net.storage.packing.codec import preview, prompt_text, question
from llcuda_net.storage.records import Result, Switch, TokenLog, encode
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.storage.records import result

IMAGE = "data:image/png;base64," + "iVBORw0K" * 500
TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds " * 300}}]
SWITCHES = [Switch(0, "reasoning"), Switch(2, "text"), Switch(3, "tool_call", 0, "c1", "add")]


def chat(number: int) -> Result:
    parts = [
        {"type": "text", "text": "What is on it?"},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ]
    request: dict[str, Any] = {
        "prompt": None,
        "messages": [{"role": "user", "content": parts}],
        "chat": {"tools": TOOLS},
        "seed": 5,
        "params": {},
    }
    log = TokenLog(["secret", " thought", "Two pears.", "", '{"apples":2}'], [None] * 5)
    return result(number, request=request, log=log, switches=SWITCHES)


def test_a_result_with_channels_comes_back_whole(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    one, other = chat(1), chat(2)
    store.put([one, other, result(3)])
    found = store.get(one.id)
    assert found == one
    assert found is not None
    assert found.text == "Two pears."
    assert found.switches == SWITCHES
    assert [problem for problem in store.verify() if problem is not None] == []
    # Images and tools are stored once.
    bodies = store._db.execute("SELECT count(*), max(uses) FROM bodies").get
    assert bodies == (2, 2)
    store.close()


def test_lists_and_the_search_know_the_text_only(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([chat(1)])
    while store.update_index():
        pass
    ((summary, text),) = store.listed(Query())
    assert (summary.preview, text) == ("What is on it?", "Two pears.")
    assert len(store.search("pears", Query())) == 1
    assert store.search("secret", Query()) == []
    assert store.search("apples", Query()) == []
    assert store.search("iVBORw0K", Query()) == []
    store.close()


def test_a_pruned_result_takes_its_bodies_along(tmp_path: Path) -> None:
    from llcuda_net.storage.results.interface import Retention

    store = SqliteStore(tmp_path, write=True)
    store.put([chat(1)])
    list(store.prune(Retention(max_bytes=0)))
    assert store._db.execute("SELECT count(*) FROM bodies").get == 0
    store.close()


def test_a_result_of_text_alone_has_the_bytes_that_it_had() -> None:
    assert b"switches" not in encode(result(1))
    assert b"switches" in encode(chat(1))


def test_texts_of_messages_in_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    request = {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "user", "content": parts},
        ]
    }
    assert prompt_text(request) == "a\nb"
    assert question(request) == "a\nb"
    assert preview(request) == "a b"
