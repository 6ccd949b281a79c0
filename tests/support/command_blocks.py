"""What a page's commands find when a test runs them: a home, files, a server, an upstream."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.processes import PATIENCE, RunningServer, environment, running_server
from tools import synthetic_upstream
from tools.documented.blocks import Block
from tools.documented.shell import script

ROOT = Path(__file__).resolve().parents[2]
#: A picture of one pixel.
_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_REQUEST = (
    '{"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": '
    '{"messages": [{"role": "user", "content": "What is a slot?"}], "max_tokens": 4}}\n'
)
#: Files that commands name, and what is in them.
FILES = {
    "report.txt": b"A slot is one parallel sequence of a model server.\n",
    "prompts.jsonl": b'{"prompt": "What is a slot?"}\n{"prompt": "What is a token?"}\n',
    "in.jsonl": b'{"prompt": "What is a slot?"}\n{"prompt": "What is a token?"}\n',
    "requests.jsonl": _REQUEST.encode(),
    "cat.png": _PNG,
}
#: Where the upstreams of the documentation listen.
_UPSTREAM = re.compile(r"127\.0\.0\.1:808([0-3])\b")
#: What a shell has beside its own: curl fails where the server refuses, jq need not be installed,
#: and a llama-server that a page starts runs already.
_MORE = """
curl() { command curl --fail-with-body "$@"; }
command -v jq >/dev/null || jq() { python3 -m json.tool; }
llama-server() { :; }
"""


class Sandbox:
    """A home and a working folder, with what a block's commands name.

    Args:
        folder: an empty one.
        server: of the page, at the address that it shows.
        upstreams: HOST:PORT of llama-servers.
    """

    def __init__(self, folder: Path, server: RunningServer, upstreams: Sequence[str]) -> None:
        self._server, self._upstreams = server, upstreams
        self._home, self._work = folder / "home", folder / "work"
        models = self._home / ".local/share/llcuda/models"
        models.mkdir(parents=True)
        self._work.mkdir()
        for name, content in FILES.items():
            (self._work / name).write_bytes(content)
        for place in (models / "smollm2.gguf", self._home / "models/demo.gguf"):
            place.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / "llcuda_net/data/demo.gguf", place)
        shutil.copy(models / "smollm2.gguf", self._work / "path.gguf")
        self._git()
        for name in ("tools", "docs", "examples", "deploy"):
            (self._work / name).symlink_to(ROOT / name)

    def _git(self) -> None:
        """A repository with a change, for `git diff`."""
        git = ["git", "-C", str(self._work), "-c", "user.name=a", "-c", "user.email=a@example.com"]
        for arguments in (["init"], ["add", "report.txt"], ["commit", "--message", "report"]):
            subprocess.run([*git, *arguments], check=True, capture_output=True)
        (self._work / "report.txt").write_bytes(FILES["report.txt"] * 2)

    def run(self, block: Block) -> subprocess.CompletedProcess[str]:
        """Run the commands; those of a block that is `alone` find no server."""
        alone = block.kind == "run" and block.words == "alone"
        port = str(_free_port()) if alone else str(self._server.port)
        code = _UPSTREAM.sub(lambda match: self._upstreams[int(match[1])], block.code)
        code = re.sub(r"\b9000\b", port, code)
        folder = self._work / "data" if alone else Path(self._server.log_path).parent / "data"
        variables = environment(
            HOME=str(self._home),
            XDG_DATA_HOME=str(self._home / ".local/share"),
            XDG_CACHE_HOME=str(self._home / ".cache"),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            LLCUDA_STORE="sqlite",
            LLCUDA_PORT=port,
            LLCUDA_SERVER=f"127.0.0.1:{port}",
            LLCUDA_DATA_DIR=str(folder),
            NO_COLOR="1",
            TERM="dumb",
        )
        return subprocess.run(
            ["bash", "-c", script(_MORE + code)],
            cwd=self._work,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def page_server() -> Iterator[RunningServer]:
    """The server that a page's commands ask, with the demonstration model and some results."""
    with running_server("--log-level", "error") as server:
        yield server


@contextlib.contextmanager
def upstreams() -> Iterator[list[str]]:
    """HOST:PORT of four llama-servers for commands that name some."""
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(synthetic_upstream.running("--rate", "2000")) for _ in range(4)
        ]
        yield [url.removeprefix("http://") for url in running]
