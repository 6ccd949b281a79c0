"""The wheel holds what the tree holds, and alone does the main job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from setuptools._distutils.filelist import FileList

from tests.support import ollama_server, processes
from tests.support.processes import PATIENCE, environment, read_line
from tools import make_dist

ROOT = Path(__file__).resolve().parent.parent
CHANGES = (ROOT / "CHANGELOG.md").read_text("utf-8")
PACKAGES = {
    "llcuda_kernels": ROOT / "kernels/llcuda_kernels",
    "llcuda_net": ROOT / "llcuda_net",
    "llcuda_protocol": ROOT / "protocol/llcuda_protocol",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once per run: `--dist loadfile` keeps this file on one worker."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: setuptools packs what an earlier build has left beside it
    for name in ("llcuda_net", "protocol", "kernels", "docs/man"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source],
        check=True,
        timeout=300,
    )
    (found,) = folder.glob("*.whl")
    return found


DATA = (".py", ".j2", ".gguf", ".typed", ".html", ".css", ".js", ".json", ".svg")


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in DATA
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    pages = {name for name in names if ".data/data/share/man/man1/" in name}
    assert names - pages == expected
    assert {Path(name).name for name in pages} == {
        path.name for path in (ROOT / "docs/man").iterdir()
    }


def installed(wheel: Path, folder: Path, *options: str) -> Path:
    """The commands of a virtual environment with the wheel in it."""
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install"]
    subprocess.run([*pip, "--quiet", *options, str(wheel)], check=True, timeout=600)
    return folder / "bin"


def test_the_wheel_serves_and_asks(wheel: Path, tmp_path: Path) -> None:
    """The checkout is not on its path; what it needs is that of this environment."""
    bin_ = installed(wheel, tmp_path / "venv", "--no-deps")
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # A path in a .pth file: the .pth of the editable checkout that lies there is not obeyed.
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    where = "import llcuda_net, llcuda_protocol as p; print(llcuda_net.__file__, p.__file__)"
    found = subprocess.run(
        [bin_ / "python", "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert all(path.startswith(str(packages)) for path in found.stdout.split())
    serves_and_asks(bin_, tmp_path)


def test_the_wheel_measures_a_server_that_is_not_llcuda(wheel: Path, tmp_path: Path) -> None:
    """One command, against a server that answers as Ollama does."""
    bin_ = installed(wheel, tmp_path / "venv", "--no-deps")
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    page, file = tmp_path / "page.html", tmp_path / "found.json"
    with ollama_server.running() as address:
        done = subprocess.run(
            [bin_ / "llcuda", "bench", "latency", "--target", f"http://{address}/v1",
             "--rate", "20", "--seconds", "1.5", "--warmup", "0.5", "--repeats", "2",
             "--max-lag", "30s", "--json", file, "--html", page],
            capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert file.exists(), done.stderr
    found = json.loads(file.read_text("utf-8"))
    assert done.returncode == (1 if found["problems"] else 0), done.stderr
    server = found["paths"]["server"]
    assert server["outcomes"]["done"] == server["requests"] > 5
    assert server["tokens"] == ollama_server.TOKENS * server["requests"]
    about = server["about"]
    assert about["version"] == f"Ollama {ollama_server.VERSION}"
    assert (about["model"], about["context"]) == (ollama_server.MODEL, ollama_server.CONTEXT)
    assert about["tokens"]["counted_by"] == "usage"
    assert f"server: http://{address}/v1 (Ollama {ollama_server.VERSION}, " in done.stdout
    assert "tokens counted by usage, not checked: no tokenizer is at hand" in done.stdout
    assert "where 64.0 were asked for" in done.stdout
    assert "had reasoning: it is output" in done.stdout
    assert "gateway" not in done.stdout
    assert page.read_text("utf-8").count("<svg") >= 4


def test_extras_are_found_in_the_installed_package(wheel: Path, tmp_path: Path) -> None:
    """As README says: no index is asked for llcuda-net itself; without it the line fails."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--isolated", "--python", str(folder / "bin/python")]
    line = ["install", "--no-index", "--no-deps", "llcuda-net[bench,mpi,parquet,otel]"]
    done = subprocess.run([*pip, *line], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1, done.stdout
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:  # as pip installs it, but for the commands
        archive.extractall(packages)
    done = subprocess.run([*pip, *line], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stderr
    assert "already satisfied: llcuda-net" in done.stdout


@pytest.mark.slow
def test_the_wheel_alone_brings_all_that_it_needs(wheel: Path, tmp_path: Path) -> None:
    serves_and_asks(installed(wheel, tmp_path / "venv"), tmp_path)


def serves_and_asks(bin_: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [bin_ / "llcuda-server", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env=environment(),
    ) as server:
        try:
            address = read_line(server).split()[-1]
            answer = subprocess.run(
                [bin_ / "llcuda-client", "--server", address, "-n", "8", "What is llcuda?"],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=environment(),
                timeout=PATIENCE,
                check=False,
            )
            assert (answer.returncode, answer.stderr) == (0, "")
            assert answer.stdout.strip()
        finally:
            server.terminate()
            assert server.wait(PATIENCE) == 0


def test_the_commands_carry_the_version_of_setup_cfg() -> None:
    (line,) = [x for x in (ROOT / "setup.cfg").read_text().splitlines() if x.startswith("version")]
    version = line.split("=")[1].strip()
    names = {"server": "llcuda-server", "client": "llcuda-client", "main": "llcuda"}
    for command, name in names.items():
        done = subprocess.run(
            processes.command(command, "--version"),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ},
        )
        assert done.stdout.strip() == f"{name} {version}"
    (newest, *_) = re.findall(r"^## \[([\d.]+)\] - 20\d\d-\d\d-\d\d$", CHANGES, re.MULTILINE)
    assert newest == version


def test_the_source_distribution_would_hold_what_git_has() -> None:
    """`make dist` compares what is built; this, what MANIFEST.in says."""
    tree = make_dist.known_to_git()
    chosen = FileList()
    chosen.set_allfiles(tree)
    for line in (ROOT / "MANIFEST.in").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            chosen.process_template_line(line)
    # What setuptools takes without being told, of the packages and for the build.
    ours = ("llcuda_net/", "protocol/llcuda_protocol/", "kernels/llcuda_kernels/")
    taken = [name for name in tree if name.startswith(ours) and name.endswith(DATA)]
    itself = ["setup.cfg", "pyproject.toml", "MANIFEST.in"]
    assert list(make_dist.wrong_sdist([*chosen.files, *taken, *itself], tree)) == []


@pytest.mark.slow
def test_the_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    for name in make_dist.known_to_git():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / "source" / name)
    line = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(tmp_path / "source")]
    subprocess.run(line, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
    (made,) = tmp_path.glob("*.whl")
    assert list(make_dist.wrong_wheels(make_dist.hashes(made), make_dist.hashes(wheel))) == []


def test_what_is_wrong_with_a_distribution_is_named() -> None:
    tree = ["setup.cfg", "llcuda_net/a.py", ".ci/run"]
    names = ["PKG-INFO", "setup.cfg", "llcuda_net.egg-info/SOURCES.txt", "core.123"]
    assert list(make_dist.wrong_sdist(names, tree)) == [
        "the source distribution has core.123, which Git does not know",
        "the source distribution has no llcuda_net/a.py: see MANIFEST.in",
    ]
    one, two = {"a": "1", "b": "2", "x/RECORD": "3"}, {"a": "1", "b": "4", "x/RECORD": "5"}
    assert list(make_dist.wrong_wheels(one, two)) == [
        "the wheels of the source distribution and of the tree differ in b"
    ]
    somebody = b"in /home/ann" + b"/llcuda/x.py"
    assert list(make_dist.machine_paths("llcuda_net/a.py", somebody)) == [
        "llcuda_net/a.py names /home/ann" + "/"
    ]
    assert list(make_dist.machine_paths("docs/a.md", somebody)) == []
