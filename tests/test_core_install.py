"""What `pip install llcuda-net` brings is enough for all but the extras, and those are named.

The environment is made from what is installed here: links to the distributions of the core, and to
nothing else.
"""

from __future__ import annotations

import configparser
import os
import pty
import shutil
import subprocess
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import pytest

from llcuda_net.cli.doctor import EXTRAS
from tests.support.distributions import closure
from tests.support.processes import PATIENCE, environment, read_line

ROOT = Path(__file__).resolve().parent.parent
OURS = ("llcuda_net", "protocol/llcuda_protocol", "kernels/llcuda_kernels")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the core alone."""
    folder = tmp_path_factory.mktemp("core") / "venv"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for found in closure().values():
        for name in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
            source, target = Path(str(found.locate_file(name))), packages / name
            if not target.exists() and name != "__pycache__" and source.exists():
                target.symlink_to(source)
    for name in OURS:
        (packages / Path(name).name).symlink_to(ROOT / name)
    about = packages / "llcuda_net-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(str(distribution("llcuda-net").read_text("METADATA")))
    return folder / "bin/python"


def llcuda(python: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "llcuda_net.cli.main", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        cwd=python.parent,
        env=environment(**extra),
        check=False,
    )


@contextmanager
def serving(python: Path, folder: Path) -> Iterator[str]:
    """The address of a server with the demonstration model."""
    with subprocess.Popen(
        [python, "-m", "llcuda_net.cli.main", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=environment(LLCUDA_STORE="sqlite", LLCUDA_DATA_DIR=str(folder / "data")),
    ) as server:
        try:
            yield read_line(server).split()[-1]
        finally:
            server.terminate()
            assert server.wait(PATIENCE) == 0


def test_the_environment_has_nothing_of_the_extras(python: Path) -> None:
    names = ("hdrh", "scipy", "textual", "huggingface_hub", "psycopg", "zstandard", "pytest")
    code = f"from importlib.util import find_spec; print([n for n in {names} if find_spec(n)])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_core_serves_asks_chats_and_keeps_results(python: Path, tmp_path: Path) -> None:
    with serving(python, tmp_path) as address:
        asked = llcuda(python, "ask", "--server", address, "-n", "8", "What is llcuda?")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert asked.stdout.strip()
        done = subprocess.run(
            [python, "-m", "llcuda_net.cli.main", "chat", "--server", address, "-n", "8"],
            input="What is a slot?\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        snapshot = llcuda(python, "top", address, "--once")
        assert snapshot.returncode == 0, snapshot.stderr
        status = llcuda(python, "models", "status", "--server", address)
        assert status.returncode == 0, status.stderr
    listed = llcuda(python, "results", "list", LLCUDA_DATA_DIR=str(tmp_path / "data"))
    assert listed.returncode == 0, listed.stderr
    assert "What is llcuda?" in listed.stdout
    models = llcuda(python, "models", "list")
    assert models.returncode == 0, models.stderr


def test_the_core_answers_a_file_of_prompts(python: Path, tmp_path: Path) -> None:
    prompts, results = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    prompts.write_text('{"prompt": "What is a slot?", "n_predict": 4}\n')
    done = llcuda(python, "batch", str(prompts), "-o", str(results))
    assert done.returncode == 0, done.stderr
    assert len(results.read_text().splitlines()) == 1


def test_the_server_before_a_llama_server_needs_no_engine(python: Path, tmp_path: Path) -> None:
    """Whoever has a llama-server may remove the built-in engine, the largest part but LLVM."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    folder = tmp_path / "venv"
    shutil.copytree(python.parent.parent, folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in packages.glob("xllamacpp*"):
        path.unlink()
    without = folder / "bin/python"
    done = llcuda(without, "serve", "--port", "0", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "the built-in engine cannot run on this machine (xllamacpp is not installed: pip install"
        " xllamacpp); name a llama-server with --engine PATH, or give one's address with --upstream"
    )
    with (
        subprocess.Popen(
            [without, "-m", "llcuda_net.cli.main", "serve", "--port", "0", "--upstream",
             "http://127.0.0.1:1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        ) as server
    ):  # fmt: skip
        assert read_line(server).startswith("listening on ")
        server.terminate()
        assert server.wait(PATIENCE) == 0


MISSING = [
    (("bench", "latency"), "bench"),
    (("models", "pull", "hf:tiny/model-GGUF"), "hub"),
    (("serve", "--model", "qwen3-0.6b", "--yes", "--port", "0"), "hub"),
    (("serve", "--store", "postgresql://127.0.0.1/x", "--port", "0"), "cluster"),
    (("serve", "--processes", "2", "--port", "0"), "cluster"),
    (("serve", "--otlp-endpoint", "http://127.0.0.1:1", "--port", "0"), "otel"),
    (("results", "export", "--format", "parquet", "-o", "x.parquet"), "parquet"),
    (("results", "list", "--store", "postgresql://127.0.0.1/x"), "cluster"),
]


@pytest.mark.parametrize(("arguments", "extra"), MISSING, ids=[" ".join(a) for a, _ in MISSING])
def test_one_line_names_the_extra_that_is_missing(
    python: Path, tmp_path: Path, arguments: tuple[str, ...], extra: str
) -> None:
    if "export" in arguments:  # there must be something to export
        with zipfile.ZipFile(ROOT / "tests/data/data_directory_0.1.0.zip") as archive:
            archive.extractall(tmp_path)
    done = llcuda(python, *arguments, LLCUDA_STORE="sqlite", LLCUDA_DATA_DIR=str(tmp_path / "data"))
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert f"pip install 'llcuda-net[{extra}]'" in line
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_top_needs_its_extra_only_on_a_terminal(python: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [python, "-m", "llcuda_net.cli.main", "top", "127.0.0.1:1"],
            stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
            env=environment(TERM="xterm"), check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "live, llcuda top needs textual: pip install 'llcuda-net[top]'; or give --once\n"
    )


def test_doctor_names_every_extra(python: Path) -> None:
    code = (
        "from llcuda_net.cli import doctor; facts = doctor.machine(); doctor._print_facts(facts);"
        "assert facts['missing'] == []"
    )
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "hub: not installed; for models of Hugging Face: pip install 'llcuda-net[hub]'" in said
    assert said.count("pip install 'llcuda-net[") == len(EXTRAS)


def test_doctor_knows_the_extras_of_setup_cfg() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    of_developers = {"dev", "docs", "fuzz", "train"}
    assert set(settings["options.extras_require"]) - of_developers == set(EXTRAS)
