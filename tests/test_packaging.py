"""The wheel holds what the tree holds, and alone does the main job."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.processes import PATIENCE, environment, read_line

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "llcuda_kernels": ROOT / "kernels/llcuda_kernels",
    "llcuda_net": ROOT / "llcuda_net",
    "llcuda_protocol": ROOT / "protocol/llcuda_protocol",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT],
        check=True,
        timeout=300,
    )
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".gguf", ".typed")
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_wheel_alone_serves_and_asks(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv/bin"
    subprocess.run(
        [bin_ / "python", "-m", "pip", "install", "--quiet", wheel], check=True, timeout=600
    )
    server = subprocess.Popen(
        [bin_ / "llcuda-server", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
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
        if server.stdout is not None:
            server.stdout.close()


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
        assert version in (ROOT / "CHANGELOG.md").read_text()
