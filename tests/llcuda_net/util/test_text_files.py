"""Users' text: byte order marks and encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.bench.workload import prompts, schedules
from llcuda_net.config import settings
from llcuda_net.errors import ConfigError
from llcuda_net.util.text_files import decode, read_text


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("\ufeffgrüß\ufeff".encode())
    assert read_text(file, "file") == "grüß\ufeff"
    assert decode(b"\xef\xbb\xbf", "it") == ""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"ab\xff", r"it is not UTF-8 text \(byte 2\): convert it"),
        ("x".encode("utf-16"), "it is UTF-16 text: convert it first, with iconv -f UTF-16"),
        (b"\xfe\xff\0x", "it is UTF-16 text"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        decode(data, "it")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="cannot read it /nowhere: No such file"):
        read_text("/nowhere", "it")


def test_every_file_of_a_user_may_begin_with_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes('\ufeff"a\u2028b"\n"c"\n'.encode())
    assert [prompts.from_file(file)[number] for number in (0, 1)] == ["a\u2028b", "c"]
    file.write_bytes("\ufeff1.5\n2\n".encode())
    assert schedules.trace(file).moments == (0.0, 0.5)
    file.write_bytes('\ufeffmodel = "a.gguf"\n'.encode())
    assert settings._read(file) == {"model": "a.gguf"}


def test_prompts_of_an_empty_file_are_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("\ufeff\n".encode())
    with pytest.raises(ConfigError, match="holds no prompt"):
        prompts.from_file(file)
