"""A line of the output: one line, whatever the answer looks like, and what it took."""

from __future__ import annotations

import json

import pytest

from llcuda_net.server.batches.ask import Answer
from llcuda_net.server.batches.output import failure_of, outcome_of
from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.batches import Batch, Line
from tests.support.storage.objects import in_memory

LINE = Line(4, 0, 9, "my ü")


@pytest.fixture
def batch() -> Batch:
    db = in_memory()
    seq = files.begin(db, "file-1", "", 1)
    file = files.finish(db, seq, purpose="batch", name="", expires=None)
    details = batches.Details("24h")
    return batches.create(
        db, "batch_7", file, owner="", endpoint="", details=details, created=1, expires=2
    )


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}', (3, 2)),
        (b'{"usage":{"input_tokens":3,"output_tokens":2,"more":[]}}', (3, 2)),
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', (3, 0)),
        (b'{"usage":null}', (0, 0)),
        (b"{}", (0, 0)),
        (b'{"usage":"none"}', (0, 0)),
        (b'{\n "a": "x\\ny",\n "usage": {"prompt_tokens": 3}\n}', (3, 0)),
    ],
)
def test_an_answer_is_one_line_and_its_tokens_are_counted(
    batch: Batch, body: bytes, tokens: tuple[int, int]
) -> None:
    found = outcome_of(batch, LINE, Answer(200, body, "req_1", {}))
    assert (found.number, found.failed) == (4, False)
    assert (found.input_tokens, found.output_tokens) == tokens
    assert found.data.count(b"\n") == 1
    assert found.data.endswith(b"\n")
    assert json.loads(found.data) == {
        "id": "batch_req_7_5",
        "custom_id": "my ü",
        "response": {"status_code": 200, "request_id": "req_1", "body": json.loads(body)},
        "error": None,
    }


def test_an_error_has_failed(batch: Batch) -> None:
    assert outcome_of(batch, LINE, Answer(400, b"{}", "req_1", {})).failed
    found = failure_of(batch, LINE, "batch_expired", "too late")
    assert found.failed
    error = {"code": "batch_expired", "message": "too late"}
    assert json.loads(found.data)["error"] == error
    assert json.loads(found.data)["response"] is None
