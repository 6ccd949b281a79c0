"""Model files, good and bad. Every bad one ends in one line that names the file."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from llcuda_net.errors import EngineError
from llcuda_net.upstream.model.gguf import read_model_file
from llcuda_net.upstream.model.header import read_header
from tests.support.upstream.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


def refusal(path: Path, named: Path | None = None) -> str:
    with pytest.raises(EngineError) as caught:
        read_model_file(path)
    message = str(caught.value)
    assert "\n" not in message
    assert (named or path).name in message
    return message


def header(*, version: int = 3, tensors: int = 1, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def test_reads_a_whole_model(tiny: Path) -> None:
    model = read_model_file(tiny)
    assert model.parts == (tiny,)
    assert model.size == tiny.stat().st_size
    assert (model.architecture, model.name) == ("llama", "tiny")
    assert model.trained_context == 512
    assert model.pooling is None
    assert model.bytes_per_token == 2 * 4 * (16 + 16) * 2  # layers, heads, widths, bytes


def test_what_remembers_a_part_only_is_not_measured(tiny: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.gguf"
    whole = tiny.read_bytes()
    key = text(b"llama.rope.dimension_count")
    assert whole.count(key) == 1
    # Another key of the same width, so that no offset changes.
    padded = text(b"llama.ssm.dimension_countx")
    assert len(padded) == len(key)
    changed.write_bytes(whole.replace(key, padded))
    assert read_model_file(changed).bytes_per_token is None


@pytest.mark.parametrize(
    ("number", "name"),
    [(1, "F16"), (7, "Q8_0"), (15, "Q4_K_M"), (30, "IQ4_XS"), (1024, "F32"), (999, "F32")],
)
def test_reads_the_quantisation(number: int, name: str, tiny: Path, tmp_path: Path) -> None:
    """By its number, or else of most weights."""
    assert read_model_file(tiny).quantisation == "F32"
    key = text(b"general.file_type") + struct.pack("<I", 4)
    changed = tmp_path / "changed.gguf"
    whole = tiny.read_bytes()
    assert whole.count(key) == 1
    at = whole.index(key) + len(key)
    changed.write_bytes(whole[:at] + struct.pack("<I", number) + whole[at + 4 :])
    assert read_model_file(changed).quantisation == name


def test_reads_the_pooling_of_an_embedding_model(tmp_path: Path) -> None:
    assert read_model_file(write_tiny_model(tmp_path / "cls.gguf", pooling=2)).pooling == 2


def test_every_cut_is_noticed(tiny: Path, tmp_path: Path) -> None:
    whole = tiny.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [*range(24), *range(24, len(whole), 4999), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        assert ("truncated" in refusal(cut)) == (size >= 4)
    assert f"{len(whole) - 1:,} of {len(whole):,} bytes" in refusal(cut)


def test_trailing_bytes_do_no_harm(tiny: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.gguf"
    longer.write_bytes(tiny.read_bytes() + b"\0" * 100)
    assert read_model_file(longer).name == "tiny"


def test_what_is_no_model_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent.gguf")
    assert "is a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "fifo.gguf")  # must not wait for a writer
    assert "not a regular file" in refusal(tmp_path / "fifo.gguf")
    (tmp_path / "text.gguf").write_bytes(b"hello, world")
    assert "is not a GGUF file" in refusal(tmp_path / "text.gguf")
    (tmp_path / "lfs.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refusal(tmp_path / "lfs.gguf")
    (tmp_path / "file" / "x").parent.write_bytes(b"")
    with pytest.raises(EngineError, match="cannot be read"):
        read_model_file(tmp_path / "file" / "x")
    with pytest.raises(EngineError, match="cannot be read"):
        read_model_file(Path("nul\0.gguf"))


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        read_model_file(tmp_path / "two\nlines.gguf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (header(version=1), "version 1"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (header(tensors=2**63), "malformed"),
        (header(keys=2**63) + bytes(99), "malformed"),
        (header(tensors=0), "no tensors"),
        (header(keys=9_000), "truncated"),
        (header(keys=1) + struct.pack("<Q", 2**63) + bytes(99), "truncated"),  # a key's name
        (header(keys=1) + text(b"k") + struct.pack("<IQ", 8, 2**60) + bytes(99), "truncated"),
        (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 4, 2**62) + bytes(99), "truncated"),
        (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 8, 2**62) + bytes(99), "malformed"),
        (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1) + bytes(99), "unknown type"),
        (header(keys=1) + text(b"k") + struct.pack("<I", 77) + bytes(99), "unknown type"),
        (header() + text(b"t") + struct.pack("<I", 2**31) + bytes(99), "dimensions"),
        (header() + text(b"t") + struct.pack("<I4QIQ", 4, *[2**63] * 4, 0, 0), "truncated"),
        (header() + text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 2**64 - 1), "truncated"),
    ],
)
def test_lengths_are_not_believed(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    assert says in refusal(path)


def test_a_string_of_a_list_that_goes_beyond_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    tokens = text(b"tokens") + struct.pack("<IIQQ", 9, 8, 1, 2**61)
    path.write_bytes(header(keys=1, tensors=0) + tokens)
    with pytest.raises(EngineError, match="truncated"):
        read_model_file(path, whole=False)


def test_what_is_kept_of_lists_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    lists = [text(f"k{n}".encode()) + struct.pack("<IIQI", 9, 4, 1, n) for n in range(300)]
    long = text(b"long") + struct.pack("<IIQ", 9, 0, 1025) + bytes(1025)
    tensor = text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0)
    path.write_bytes(header(keys=301) + long + b"".join(lists) + tensor + bytes(64))
    found = read_header(path)
    assert len(found.lists) == 256
    assert found.lists["k7"] == (7,)
    assert "long" not in found.lists
    assert found.counts["long"] == 1025
    assert len(found.counts) == 301


def test_a_missing_part_of_a_split_model(tmp_path: Path) -> None:
    tensor = text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0)
    count = text(b"split.count") + struct.pack("<IH", 2, 2)
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(header(keys=1) + count + tensor + bytes(64))
    assert "m-00002-of-00002.gguf is missing" in refusal(first)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.write_bytes(bytes(10))
    assert "is not a GGUF file" in refusal(first, second)
    second.write_bytes(header() + tensor + bytes(64))
    model = read_model_file(first)
    assert model.parts == (first, second)
    assert model.size == first.stat().st_size + second.stat().st_size
    assert model.parameters == 2
    second.write_bytes(second.read_bytes()[:-60])
    assert "truncated" in refusal(first, second)


def test_a_first_part_that_holds_no_tensors(tmp_path: Path) -> None:
    count = text(b"split.count") + struct.pack("<IH", 2, 2)
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(header(keys=1, tensors=0) + count)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.write_bytes(header() + text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0) + bytes(64))
    assert read_model_file(first).parameters == 1
