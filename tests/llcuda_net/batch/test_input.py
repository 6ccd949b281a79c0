"""Lines of the input: what they may be, and their keys."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.batch import input as batch_input
from llcuda_net.batch.input import Input, Line
from llcuda_net.errors import ConfigError


def read(path: Path, params: dict[str, Any] | None = None, job: str = "") -> list[Line]:
    with closing(Input(path)) as given:
        found = list(given.read(params or {}, job))
        assert (given.count, given.last) == (len(found), found[-1].number)
        return found


def parse(value: Any, **params: Any) -> Line:
    return batch_input._line(3, json.dumps(value).encode(), params, "")


def test_what_a_line_may_be(tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(
        b'"hello"\n\n  \n{"raw": "x", "temperature": 0.5}\n'
        b'{"prompt": [1, 2], "id": {"a": 1}, "params": {"n_predict": 9}}\nnonsense'
    )
    found = read(file, {"n_predict": 4})
    assert [line.number for line in found] == [1, 4, 5, 6]
    assert found[0].messages == [{"role": "user", "content": "hello"}]
    assert (found[1].raw, found[1].params) == ("x", {"n_predict": 4, "temperature": 0.5})
    assert (found[2].raw, found[2].id, found[2].params) == ([1, 2], {"a": 1}, {"n_predict": 9})
    assert found[3].problem == "not JSON: Expecting value at character 1"


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
    keys = [line.key for line in read(file, {"n": 1})]
    assert keys[0] != keys[1]
    assert [line.key for line in read(file, {"n": 1})] == keys
    others = [*read(file, {"n": 2}), *read(file, {"n": 1}, "again")]
    assert not {line.key for line in others} & set(keys)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_line(data: bytes) -> None:
    line = batch_input._line(1, data, {}, "")
    assert line.problem or line.raw is not None or line.messages


def test_how_a_file_is_written_makes_no_difference(tmp_path: Path) -> None:
    """Byte order marks, line ends, a last line without one: the same lines with the same keys."""
    lines = ['"東京"', "", '{"prompt": "b", "id": 7}']
    forms = {
        "plain": "\n".join(lines) + "\n",
        "open end": "\n".join(lines),
        "crlf": "\r\n".join(lines) + "\r\n",
        "mark": "\ufeff" + "\n".join(lines),
        "marks": "\n".join("\ufeff" + line for line in lines),  # put together from several
    }
    found = []
    for name, text in forms.items():
        file = tmp_path / name
        file.write_bytes(text.encode())
        found.append(read(file))
        assert [line.number for line in found[-1]] == [1, 3]
        assert found[-1][0].messages == [{"role": "user", "content": "東京"}]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "in"
    file.write_bytes('\ufeff"a"\n'.removeprefix("\ufeff" * (encoding == "utf-16")).encode(encoding))
    with pytest.raises(ConfigError, match="in is UTF-16 text: convert it first, with iconv"):
        Input(file)


def test_a_pipe_is_read_once_and_can_be_read_again(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text = "".join(f'"{number}"\n' for number in range(50_000))

    def write() -> None:
        fifo.write_text(text)

    writer = threading.Thread(target=write)
    writer.start()
    with closing(Input(fifo)) as given:
        writer.join()
        assert (given.count, given.last) == (50_000, 50_000)
        for _ in range(2):
            assert sum(1 for _ in given.read({}, "")) == 50_000


def test_ids_that_come_again_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_text('{"raw": "a", "id": 1}\n"b"\n"c"\n{"raw": "d", "id": 1}\n{"raw": "e", "id": 1}')
    with closing(Input(file)) as given:
        assert len(list(given.read({}, ""))) == 5
        assert (given.repeated, given.first_repeated) == (2, (4, 1))


def test_no_room_for_a_copy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b'"a"')
    os.close(write_end)
    full = Path("/dev/full")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: full.open("r+b"))
    with pytest.raises(ConfigError, match=r"no room for a copy .*No space left.*TMPDIR"):
        Input(f"/dev/fd/{read_end}")
    os.close(read_end)


@pytest.mark.parametrize(("path", "why"), [("/nowhere", "No such file"), ("/tmp", "Is a dir")])
def test_what_cannot_be_read(path: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot read {path}: {why}"):
        Input(path)
