#!/usr/bin/env python3
"""Write a data directory as the llcuda of this interpreter leaves it, for tests of upgrades.

It uses only what llcuda 0.1.0 had, so that it runs in an environment of an early commit.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import llcuda_net.sync
from llcuda_net.cli.common import Parser

EXAMPLE = """\
example, for tests/data/data_directory_911ff37.zip:
  git clone . early && git -C early checkout 911ff37
  python -m venv env && env/bin/pip install ./early
  env/bin/python tools/make_earlier_directory.py tests/data/data_directory_911ff37.zip

A server with two users and the demonstration model is asked all kinds of requests; its analyses
run; it is killed with -9 while it generates, once to be started again, and once for good. The
archive has the data directory as that leaves it, and expected.json: what the commands of that
version printed of it, and of each generation under way what its client had.
"""
USERS = {"ann": "tokenofann1234567890", "bob": "tokenofbob1234567890"}
#: Tokens of an answer that is to be cut: it never ends by itself before.
LONG = 1500
#: Seconds to wait for something that takes a moment.
PATIENCE = 300.0
BIN = Path(sys.executable).parent
#: Streams that are never closed: that would cancel what they read.
_kept: list[Any] = []


class Server:
    """llcuda-server of this environment on a data directory."""

    def __init__(self, folder: Path) -> None:
        tokens = folder.parent / "tokens"
        tokens.write_text("".join(f"{token}  name={name}\n" for name, token in USERS.items()))
        tokens.chmod(0o600)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LLCUDA_")}
        options = ["--port", "0", "--slots", "2", "--data-dir", str(folder)]
        options += ["--auth-token-file", str(tokens), "--disconnect-seconds", "0.2"]
        self.process = subprocess.Popen(
            [BIN / "llcuda-server", *options], stdout=subprocess.PIPE, text=True, env=kept
        )
        atexit.register(self.process.kill)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]

    def client(self, name: str) -> Any:
        """A client of a user."""
        return llcuda_net.sync.connect(self.address, token=USERS[name])

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


def main() -> int:
    """Write the archive; returns the exit code."""
    parser = Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("archive", type=Path, help="the archive to write, a .zip")
    archive = parser.parse_args().archive.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        expected = {"cut": make(folder)}
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
            for path in sorted(folder.rglob("*")):
                # As the kill left it: the commands below let SQLite tidy up.
                if path.is_dir() or not path.name.endswith("-shm"):
                    out.write(path, path.relative_to(folder.parent))
            expected |= printed(folder)
            out.writestr("expected.json", json.dumps(expected, indent=1, sort_keys=True))
    return 0


def make(folder: Path) -> dict[str, Any]:
    """Fill a data directory; what clients had of the generations that were cut."""
    server = Server(folder)
    with server.client("ann") as ann, server.client("bob") as bob:
        done(ann, "What is a token?", key="first")
        done(ann, "How sure are you?", n_probs=3, n_predict=12)
        done(bob, messages=chat("Tell me about the journal. " * 30), n_predict=30)
        done(bob, "你好\uff0c世界 \u2014 naïve café", n_predict=8)
        done(bob, raw="Strictly kept:", n_predict=8, level="strict")
        done(bob, "Kept by the process", n_predict=8, level="process")
        for _ in range(2):
            done(ann, "Asked twice", n_predict=10, cache=True, seed=7)
        with ann.generate("Cancel me", n_predict=LONG, ignore_eos=True) as stream:
            take(stream, 3)
            stream.cancel()
            for _ in stream:
                pass
        with contextlib.suppress(llcuda_net.RequestError):
            done(bob, "Too slow", n_predict=LONG, ignore_eos=True, timeout=0.1)
        spliced = begin(bob, "Killed once", n_predict=60)
        server.kill()
    server = Server(folder)
    with server.client("bob") as bob, bob.attach(spliced["id"], 0) as stream:
        text = "".join(stream)
        assert text.startswith("".join(spliced["pieces"]))
    wait_for_analyses(folder)
    cut = {}
    with server.client("ann") as ann, server.client("bob") as bob:
        cut["plain"] = begin(ann, "Cut off", key="cut", on_disconnect="continue")
        cut["chat"] = begin(
            bob, messages=chat("Cut off as well"), n_probs=2, on_disconnect="continue"
        )
        waiting = ann.generate("Not begun", n_predict=16, temperature=0, on_disconnect="continue")
        _kept.append(waiting)
        cut["waiting"] = {"id": waiting.id, "pieces": []}
        server.kill()
    return cut


def chat(text: str) -> list[dict[str, str]]:
    """A conversation that ends with a question."""
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": text},
    ]


def done(client: Any, prompt: str | None = None, **arguments: Any) -> None:
    """Have something generated to its end."""
    arguments.setdefault("n_predict", 20)
    arguments.setdefault("temperature", 0)
    client.complete(prompt, **arguments)


def begin(client: Any, prompt: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Begin something long, and read a few pieces of it."""
    arguments.setdefault("n_predict", LONG)
    stream = client.generate(prompt, ignore_eos=True, temperature=0, **arguments)
    _kept.append(stream)
    return {"id": stream.id, "pieces": take(stream, 5)}


def take(stream: Any, count: int) -> list[str]:
    """The first pieces."""
    pieces = iter(stream)
    return [next(pieces) for _ in range(count)]


def wait_for_analyses(folder: Path) -> None:
    """Return when nothing more is embedded or computed for some seconds."""
    end, quiet, before = time.monotonic() + PATIENCE, 0, (0, 0)
    while time.monotonic() < end:
        sql = "SELECT (SELECT count(*) FROM embeddings), (SELECT count(*) FROM figures)"
        with contextlib.closing(sqlite3.connect(folder / "derived.db")) as db:
            now = db.execute(sql).fetchone()
        quiet = quiet + 1 if now == before and all(now) else 0
        if quiet == 8:
            return
        before = now
        time.sleep(1)
    raise SystemExit("the analyses do not come to their end")


def printed(folder: Path) -> dict[str, Any]:
    """What the commands print of the directory; each object of each line."""
    out: dict[str, Any] = {
        name: run(folder, name) for name in ("list", "export", "stats", "verify")
    }
    out["search"] = {
        word: [hit["id"] for hit in run(folder, "search", word)]
        for word in ("token", "journal", "世界", "caf*")
    }
    out["show"] = [run(folder, "show", one["id"])[0] for one in out["list"]]
    return out


def run(folder: Path, name: str, *arguments: str) -> list[Any]:
    """The JSON lines of a subcommand of `llcuda results`."""
    line = [str(BIN / "llcuda"), "results", name, *arguments, "--data-dir", str(folder)]
    result = subprocess.run([*line, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(text) for text in result.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(main())
