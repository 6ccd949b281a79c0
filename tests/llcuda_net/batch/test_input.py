"""Lines of the input: what they may be, and their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.batch import input as batch_input
from llcuda_net.batch.input import Line
from llcuda_net.errors import ConfigError


def parse(value: Any, **params: Any) -> Line:
    return batch_input._line(3, json.dumps(value).encode(), params, "")


def test_what_a_line_may_be(tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(
        b'"hello"\n\n  \n{"raw": "x", "temperature": 0.5}\n'
        b'{"prompt": [1, 2], "id": {"a": 1}, "params": {"n_predict": 9}}\nnonsense'
    )
    found = list(batch_input.read(file, {"n_predict": 4}, ""))
    assert [line.number for line in found] == [1, 4, 5, 6]
    assert batch_input.count(file) == 4
    assert found[0].messages == [{"role": "user", "content": "hello"}]
    assert (found[1].raw, found[1].params) == ("x", {"n_predict": 4, "temperature": 0.5})
    assert (found[2].raw, found[2].id, found[2].params) == ([1, 2], {"a": 1}, {"n_predict": 9})
    assert found[3].problem == "not JSON"


def test_a_system_message_goes_first() -> None:
    assert parse({"prompt": "q", "system": "s"}).messages == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
    ]


@pytest.mark.parametrize(
    "value",
    [
        1, None, [], {}, {"prompt": ""}, {"prompt": 5}, {"prompt": "a", "raw": "b"},
        {"prompt": [-1]}, {"prompt": [True]}, {"raw": [[1]]}, {"messages": []},
        {"messages": [{"role": "user"}]}, {"prompt": "a", "params": 3},
        {"prompt": "a", "system": 3}, {"prompt": {}},
    ],
)  # fmt: skip
def test_what_is_no_request_says_why(value: Any) -> None:
    line = parse(value)
    assert line.problem
    assert line.key


def test_a_key_is_of_number_content_parameters_and_job(tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_text('"a"\n"a"\n')
    keys = [line.key for line in batch_input.read(file, {"n": 1}, "")]
    assert keys[0] != keys[1]
    assert [line.key for line in batch_input.read(file, {"n": 1}, "")] == keys
    others = [
        *batch_input.read(file, {"n": 2}, ""),
        *batch_input.read(file, {"n": 1}, "again"),
    ]
    assert not {line.key for line in others} & set(keys)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_line(data: bytes) -> None:
    line = batch_input._line(1, data, {}, "")
    assert line.problem or line.raw is not None or line.messages


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        list(batch_input.read(Path("/nowhere"), {}, ""))
    with pytest.raises(ConfigError, match="cannot read"):
        batch_input.count(Path("/nowhere"))
