"""Results survive a kill at any byte: nothing twice, nothing lost, and in order."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.batch.output import Output
from llcuda_net.errors import ConfigError

NUMBERS = [1, 2, 4, 5, 8, 9, 10]  # with blank lines between


def result(number: int, **more: object) -> dict[str, object]:
    return {"line": number, "key": f"k{number}", "text": "é\n" * number, **more}


def add(output: Output, number: int, **more: object) -> None:
    output.add(number, f"k{number}", result(number, **more))


def written(path: Path) -> list[int]:
    return [json.loads(line)["line"] for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("ordered", [True, False])
def test_order(tmp_path: Path, ordered: bool) -> None:
    path = tmp_path / "out"
    output = Output(path, ordered=ordered)
    for number in NUMBERS[:4]:
        output.expect(number)
    for number in (4, 2, 1):
        add(output, number)
    assert written(path) == ([1, 2, 4] if ordered else [4, 2, 1])
    for number in NUMBERS[4:]:
        output.expect(number)
    for number in (10, 8, 5, 9):
        add(output, number)
    output.close()
    assert written(path) == (NUMBERS if ordered else [4, 2, 1, 10, 8, 5, 9])
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_kill_at_any_byte(data: st.DataObject) -> None:
    """The files as a kill may leave them: the last line of either cut off anywhere."""
    ordered = data.draw(st.booleans())
    order = data.draw(st.permutations(NUMBERS))
    rng = random.Random(data.draw(st.integers(0, 1000)))
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "out"
        asked: list[int] = []
        for _ in range(30):  # lives
            output = Output(path, ordered=ordered)
            for number in NUMBERS:
                output.expect(number)
            left = [number for number in order if number not in output.known]
            if not left:
                output.close()
                break
            for number in left[: rng.randint(0, 3)]:
                asked.append(number)
                add(output, number)
            # Killed: no close, and what was written last may be half there.
            for file in (path, path.with_name("out.waiting")):
                if file.exists() and rng.random() < 0.4 and (size := file.stat().st_size):
                    last = file.read_bytes()[:-1].rfind(b"\n") + 1
                    with file.open("r+b") as opened:
                        opened.truncate(rng.randint(last, size))
            _unlock(output)
        else:
            output = Output(path, ordered=ordered)
            for number in NUMBERS:
                output.expect(number)
            for number in [n for n in NUMBERS if n not in output.known]:
                add(output, number)
            output.close()
        found = written(path)
        assert sorted(found) == NUMBERS
        if ordered:
            assert found == NUMBERS
    finally:
        shutil.rmtree(folder)


def _unlock(output: Output) -> None:
    """As a kill does: the descriptors go, and with them the lock."""
    import contextlib
    import os

    for descriptor in (output._file, output._aside):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.mark.parametrize("ordered", [True, False])
def test_errors_that_may_pass_are_tried_again_and_others_stay(
    tmp_path: Path, ordered: bool
) -> None:
    path = tmp_path / "out"
    output = Output(path, ordered=ordered)
    for number in (1, 2, 4, 5):
        output.expect(number)
    add(output, 1)
    add(output, 2, error={"code": "internal", "message": "x", "retry": True})
    add(output, 4, error={"code": "bad_line", "message": "x", "retry": False})
    add(output, 5)
    output.close()
    again = Output(path, ordered=ordered)
    assert set(again.known) == {1, 4, 5}
    assert again.errors == 1
    for number in (1, 2, 4, 5):
        again.expect(number)
    add(again, 2)
    again.close()
    assert written(path) == ([1, 2, 4, 5] if ordered else [1, 4, 5, 2])
    assert path.read_text("utf-8").count('"error"') == 1


def test_one_job_at_a_time(tmp_path: Path) -> None:
    output = Output(tmp_path / "out", ordered=True)
    with pytest.raises(ConfigError, match="another job is writing"):
        Output(tmp_path / "out", ordered=True)
    output.close()
    Output(tmp_path / "out", ordered=False).close()


@pytest.mark.parametrize("text", ["hello\n", "[]\n", "{}\n", '{"line": "x", "key": 1}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is no result of a batch"):
        Output(path, ordered=False)
    assert path.read_text() == text


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        Output(tmp_path / "no" / "out", ordered=True)


def test_what_waits_for_its_turn_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "out"
    output = Output(path, ordered=True)
    for number in (1, 2, 4):
        output.expect(number)
    add(output, 4)
    add(output, 2)
    _unlock(output)  # killed
    assert written(path) == []
    again = Output(path, ordered=True)
    assert set(again.known) == {2, 4}
    for number in (1, 2, 4):
        again.expect(number)
    add(again, 1)
    again.close()
    assert written(path) == [1, 2, 4]


def test_what_cannot_be_read_again_is_no_output(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/null")):
        with pytest.raises(ConfigError, match=f"cannot write {path}: it is no regular file"):
            Output(path, ordered=True)
    with pytest.raises(ConfigError, match="Is a directory"):
        Output(tmp_path, ordered=True)
    assert [each.name for each in tmp_path.iterdir()] == ["fifo"]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text('{"line": 9, "key": "x", "error": {"retry": true}}\n')  # makes it lay out anew
    link.symlink_to(real)
    output = Output(link, ordered=False)
    output.add(1, "k1", {"line": 1, "key": "k1"})
    output.close()
    assert link.is_symlink()
    assert written(real) == [1]
