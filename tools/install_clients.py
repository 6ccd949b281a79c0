#!/usr/bin/env python3
"""Installs the clients that tests/clients tries, each into a folder of its own below .clients.

They come from the registries of PyPI and npm. What cannot be installed is told, and fails its
tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

from llcuda_net.util.terminal import echo

FOLDER = ROOT / ".clients"
#: Of npm, a folder each. The SDKs have a node of their own: they want a newer one than many systems
#: have.
NPM = {
    "node": (
        "openai@^7.59",
        "@anthropic-ai/sdk@^1.14",
        "ai@^7.0",
        "@ai-sdk/openai-compatible@^3.0",
        "@ai-sdk/openai@^4.0",
        "@ai-sdk/anthropic@^4.0",
        "zod@^4.6",
        "node@^22.23",
    ),
    "codex": ("@openai/codex@^0.171",),
    "claude-code": ("@anthropic-ai/claude-code@^2.1",),
}
#: Those of npm that are programs, which there are not for every machine.
PROGRAMS = {"codex": "codex", "claude-code": "claude"}
#: Of PyPI, an environment each: their pins clash.
PYTHON = {
    "aider": ("aider-chat>=0.86,<0.87",),
    "langchain": ("langchain-openai>=1.7,<2", "langchain>=1.5,<2"),
    "litellm": ("litellm>=1.110,<2",),
    "llamaindex": (
        "llama-index-llms-openai-like>=0.8,<0.9",
        "llama-index-embeddings-openai-like>=0.4,<0.5",
    ),
    "llm": ("llm>=0.36,<1",),
    "open-webui": ("open-webui==0.12.4",),
}
#: Installed without what it names, and with what its list for small installations names.
SLIM = "open-webui"
#: Seconds for one of them.
PATIENCE = 1200.0


def python(name: str) -> Path:
    """The interpreter of an environment."""
    return FOLDER / name / "bin" / "python"


def node() -> Path:
    """The interpreter of the clients in JavaScript."""
    return FOLDER / "node" / "node_modules" / ".bin" / "node"


def program(name: str) -> Path:
    """One of PROGRAMS."""
    return FOLDER / name / "node_modules" / ".bin" / PROGRAMS[name]


def failure(name: str) -> str | None:
    """Why a client is not installed; None: it is."""
    stamp, reason = _stamp(name), FOLDER / f"{name}.failed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == _wanted(name):
        return None
    if reason.exists():
        return reason.read_text(encoding="utf-8")
    return "it is not installed: run `make test-clients`"


def main() -> int:
    """Install what is not there yet; what fails is told and left to the tests."""
    FOLDER.mkdir(exist_ok=True)
    for name in (*NPM, *PYTHON):
        reason = FOLDER / f"{name}.failed"
        if failure(name) is None:
            continue
        echo(f"installing {', '.join(_packages(name))} into {(FOLDER / name).relative_to(ROOT)}")
        reason.unlink(missing_ok=True)
        try:
            _install(name)
        except (OSError, subprocess.SubprocessError) as error:
            text = str(error)
            if isinstance(error, subprocess.CalledProcessError):
                text = f"{text}\n{error.output}"
            reason.write_text(text, encoding="utf-8")
            echo(f"that failed: {text.strip().splitlines()[-1]}")
        else:
            _stamp(name).write_text(_wanted(name), encoding="utf-8")
    return 0


def _install(name: str) -> None:
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    if name in NPM:
        if shutil.which("npm") is None:
            raise OSError("npm is not installed: on Debian and Ubuntu, apt install npm")
        folder.mkdir()
        (folder / "package.json").write_text(json.dumps({"private": True}), encoding="utf-8")
        quiet = ("--no-fund", "--no-audit", "--loglevel=error")
        _run(["npm", "install", *quiet, *NPM[name]], folder)
        if name in PROGRAMS:
            _run([str(program(name)), "--version"], folder)
        return
    _run([sys.executable, "-m", "venv", str(folder)], FOLDER)
    pip = [str(python(name)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if name != SLIM:
        _run([*pip, *PYTHON[name]], folder)
        return
    # Whole it brings torch and gigabytes more.
    _run([*pip, "--no-deps", *PYTHON[name]], folder)
    (slim,) = folder.glob("lib/*/site-packages/requirements-slim.txt")
    _run([*pip, "--requirement", str(slim)], folder)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        timeout=PATIENCE,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _stamp(name: str) -> Path:
    return FOLDER / name / "installed"


def _wanted(name: str) -> str:
    return " ".join(_packages(name))


def _packages(name: str) -> tuple[str, ...]:
    return NPM[name] if name in NPM else PYTHON[name]


if __name__ == "__main__":
    sys.exit(main())
