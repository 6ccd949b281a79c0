"""What is asked of servers that refuse some of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llcuda_net.batch.targets.chat_request import Dialect

PARAMS = {"n_predict": 5, "seed": 1, "ignore_eos": True, "cache_prompt": False}
ALL = {"max_tokens", "seed", "ignore_eos", "stream_options", "model", "messages", "stream"}


def body(dialect: Dialect, owner: str = "", **params: Any) -> bytes:
    return dialect.body([{"role": "user", "content": "x"}], {**PARAMS, **params}, "m", owner)


def refusal(name: str) -> bytes:
    return json.dumps({"error": {"message": f"Unsupported parameter: '{name}'"}}).encode()


def test_what_is_sent() -> None:
    dialect = Dialect()
    assert json.loads(body(dialect)).keys() == ALL
    assert json.loads(body(dialect, ignore_eos=False)).keys() == ALL - {"ignore_eos"}
    for owner in ("llamacpp", "llcuda"):
        assert json.loads(body(dialect, owner)).keys() == ALL | {"cache_prompt"}
    assert dialect.notes == []


def test_max_tokens_by_its_newer_name() -> None:
    dialect = Dialect()
    said = (
        b'{"error": {"message": "\'max_tokens\' is not supported: use \'max_completion_tokens\'"}}'
    )
    assert dialect.learn(400, said, body(dialect))
    sent = json.loads(body(dialect))
    assert sent["max_completion_tokens"] == 5
    assert "max_tokens" not in sent
    assert not dialect.learn(400, said, body(dialect))  # it is not sent any more
    assert dialect.notes == []


def test_what_is_refused_is_left_out_and_said() -> None:
    dialect = Dialect()
    pydantic = json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "ignore_eos"]}]})
    assert dialect.learn(422, pydantic.encode(), body(dialect))
    sent = json.loads(body(dialect))
    assert sent["min_tokens"] == 5
    assert "ignore_eos" not in sent
    assert dialect.notes == ["the server refuses ignore_eos: min_tokens was sent in its place"]
    assert dialect.learn(400, refusal("min_tokens"), body(dialect))
    assert dialect.learn(400, refusal("seed"), body(dialect))
    assert dialect.learn(400, refusal("stream_options"), body(dialect))
    assert json.loads(body(dialect)).keys() == ALL - {"ignore_eos", "seed", "stream_options"}
    assert len(dialect.notes) == 3
    assert any("min_tokens, too" in note for note in dialect.notes)


def test_only_what_was_left_out_of_a_request_is_said() -> None:
    dialect = Dialect()
    assert dialect.learn(400, refusal("ignore_eos"), body(dialect))
    body(dialect, ignore_eos=False)
    assert dialect.notes == []


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, b"the prompt is too long"), (404, refusal("seed")), (500, refusal("seed")), (400, b"")],
)
def test_what_is_no_refusal_of_a_field(status: int, said: bytes) -> None:
    dialect = Dialect()
    assert not dialect.learn(status, said, body(dialect))
    assert dialect.refused == set()
