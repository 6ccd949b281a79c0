"""Compiled kernels on the disk: whole or ignored, private, bounded, and never in the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llcuda_kernels.cuda.runtime import kept
from llcuda_kernels.cuda.runtime.kept import Code
from tests.support.kernels.compiling import kernels

ROOT = Path(__file__).resolve().parents[4]
CODE = Code("_Z4spin", b"\x7fELF" + bytes(range(256)) + b"\n\n")
NAME = "ab" * 32

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="NVIDIA's compiler is for Linux"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels are kept; nobody has made it yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept._once.cache_clear()
    return tmp_path / "cache/llcuda/cubins"


def test_what_was_put_is_got(folder: Path) -> None:
    assert kept.get(NAME) is None
    assert kept.total() == (0, 0)
    kept.put(NAME, CODE)
    assert kept.get(NAME) == CODE
    assert kept.get("cd" * 32) is None
    assert kept.total() == (1, (folder / NAME).stat().st_size)


def test_the_folder_and_its_files_are_the_users_alone(folder: Path) -> None:
    kept.put(NAME, CODE)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_the_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("", "relative/path"):  # a relative one is to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        assert kept.folder() == tmp_path / ".cache/llcuda/cubins"


def _damaged() -> dict[str, bytes]:
    whole = kept._pack(CODE, NAME)
    return {
        "empty": b"",
        "torn": whole[:-1],
        "longer": whole + b"\n",
        "one bit": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        "another kernel's": kept._pack(CODE, "cd" * 32),
        "another format": whole.replace(b"kernel 1", b"kernel 2"),
        "no text": bytes(range(256)),
    }


@pytest.mark.parametrize("how", _damaged())
def test_a_damaged_file_is_ignored_and_written_anew(how: str, folder: Path) -> None:
    kept.put(NAME, CODE)
    (folder / NAME).write_bytes(_damaged()[how])
    assert kept.get(NAME) is None
    kept.put(NAME, CODE)
    assert kept.get(NAME) == CODE


def test_where_others_may_write_nothing_is_read_or_written(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.put(NAME, CODE)
    for mode in (0o770, 0o707, 0o722):
        folder.chmod(mode)
        assert kept.get(NAME) is None
        kept.put("cd" * 32, CODE)
        assert [path.name for path in folder.iterdir()] == [NAME]
    folder.chmod(0o755)
    assert kept.get(NAME) == CODE


def test_another_users_folder_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put(NAME, CODE)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert kept.get(NAME) is None


def test_no_trouble_with_the_disk_is_an_error_and_it_is_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file where the folder should be")
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            kept.put(NAME, CODE)
            assert kept.get(NAME) is None
    assert kept.total() == (0, 0)
    told = [record.getMessage() for record in caplog.records if "not kept" in record.getMessage()]
    assert len(told) == len(set(told)) <= 2


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, to: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    kept.put(NAME, CODE)
    assert list(folder.iterdir()) == []


def test_what_was_not_used_for_longest_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i:02}" * 32 for i in range(4)]
    size = len(kept._pack(CODE, NAME))
    monkeypatch.setattr(kept, "MOST_BYTES", 3 * size)
    for days, name in zip((2, 4, 3), names[:3], strict=True):
        kept.put(name, CODE)
        os.utime(folder / name, (0, time.time() - days * 86400))
    assert kept.get(names[1]) == CODE  # which is a use
    kept.put(names[3], CODE)
    assert {path.name for path in folder.iterdir()} == {names[0], names[1], names[3]}


def test_what_a_process_that_died_has_left_goes(folder: Path) -> None:
    kept.put(NAME, CODE)
    for name, age in ((".new-old", 2 * 86400), (".new-now", 0)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (0, time.time() - age))
    assert kept.total().kernels == 1
    kept.put(NAME, CODE)
    assert {path.name for path in folder.iterdir()} == {NAME, ".new-now"}


@linux
def test_the_key_covers_all_that_a_kernel_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    spin = kernels()["spin"]

    def key(cc: tuple[int, int] = (9, 0), compilers: str = "numba-cuda 1") -> str:
        return kept.key(spin, cc, compilers)

    first = key()
    found = [first, key((8, 0)), key(compilers="numba-cuda 2")]
    found.append(kept.key(kernels()["post"], (9, 0), "numba-cuda 1"))
    for name, value in (("bounds", 128), ("signature", spin.signature[:-1])):
        with monkeypatch.context() as patch:
            patch.setattr(spin, name, value)
            found.append(key())
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_OPT", "0")
        found.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_source", lambda: "another source")
        found.append(key())
    assert len(set(found)) == 8
    assert key() == first


def test_the_source_is_all_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    source = kept._source.__wrapped__
    before, read = source(), Path.read_bytes
    for changed in ("intrinsics.py", "topk.py", "search.py"):
        with monkeypatch.context() as patch:
            patch.setattr(
                Path, "read_bytes", lambda self, c=changed: read(self) + b"#" * (self.name == c)
            )
            assert source() != before
    monkeypatch.setattr(kept, "__file__", "/nowhere/a/b/c/kept.py")
    with pytest.raises(FileNotFoundError):
        source()


def test_many_writers_and_readers_see_whole_files(folder: Path) -> None:
    """Processes that put the same kernel at once, while others read it."""
    script = (
        "import sys\n"
        "from llcuda_kernels.cuda.runtime import kept\n"
        "code = kept.Code('e', sys.argv[1].encode() * 100_000)\n"
        "for _ in range(50):\n"
        f"    kept.put({NAME!r}, code)\n"
        f"    found = kept.get({NAME!r})\n"
        "    assert found is not None and len(set(found.data)) == 1, found\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "kernels")}
    running = [
        subprocess.Popen([sys.executable, "-c", script, letter], env=env) for letter in "abcd"
    ]
    assert [process.wait() for process in running] == [0] * 4
    assert [path.name for path in folder.iterdir()] == [NAME]


COMPILE = """
import subprocess, sys, tempfile
from pathlib import Path
from llcuda_kernels.cuda import synthetic_load
from llcuda_kernels.cuda.runtime import compiled, driver
from llcuda_kernels.cuda.runtime.kernel import REGISTRY
from tests.support.kernels.compiling import assembler

def assemble(text, cc):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "k.ptx"
        source.write_text(text)
        out = source.with_suffix(".cubin")
        subprocess.run([assembler(), f"-arch=sm_{cc[0]}{cc[1]}", source, "-o", out], check=True)
        return out.read_bytes()

driver.assemble = assemble
kernel = REGISTRY["spin"]
code = compiled.kept_code(kernel, (9, 0))
how = "kept"
if code is None:
    code, how = compiled.compile_code(kernel, (9, 0)), "compiled"
print(how, code.entry, len(code.data), code.data[:4] == b"\\x7fELF")
"""


@linux
def test_a_new_process_finds_what_another_has_compiled(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}

    def run(**more: Any) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", COMPILE], env={**env, **more}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout.split()

    first, second = run(), run()
    assert first[0] == "compiled"
    assert second == ["kept", *first[1:]]
    assert first[-1] == "True"
    assert run(NUMBA_OPT="2")[0] == "compiled"
    assert len(list(folder.iterdir())) == 2
