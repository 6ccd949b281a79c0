"""What `llcuda setup` writes is what a server runs by, and what systemd starts."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest

import llcuda_net.sync
from tests.support.processes import PATIENCE, command, environment, run, running_server


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has nothing yet."""
    folder = tmp_path / "home"
    folder.mkdir()
    variables = environment(HOME=str(folder), TERM="xterm")
    for name in [one for one in variables if one.startswith(("LLCUDA_", "XDG_", "HF_"))]:
        del variables[name]
    return variables


def test_a_server_runs_by_the_file(home: dict[str, str]) -> None:
    done = subprocess.run(
        [*command("main", "setup", "--yes", "--no-service"), "--model", "demo"],
        env=home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    config = Path(home["HOME"], ".config/llcuda/llcuda.toml")
    assert f"llcuda serve --config {config}" in done.stdout
    data = str(Path(home["HOME"], ".local/share/llcuda"))
    with running_server("--config", str(config), LLCUDA_DATA_DIR="", HOME=home["HOME"]) as server:
        with llcuda_net.sync.connect(server.address) as client:
            assert client.complete("What is a slot?", n_predict=8).text
        assert Path(data, "journal").is_dir()
        assert "data_dir_closed_to_others" not in server.log()


def test_a_token_that_it_made_opens_the_server(home: dict[str, str]) -> None:
    done = subprocess.run(
        [*command("main", "setup", "--yes", "--model", "demo", "--host", "0.0.0.0")],
        env=home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(home["HOME"], ".config/llcuda")
    with running_server("--config", str(folder / "llcuda.toml")) as server:
        near = f"127.0.0.1:{server.port}"
        asked = ("--server", near, "--max-tokens", "4", "What is a slot?")
        refused = run("client", *asked)
        assert refused.returncode != 0
        taken = run("client", "--token-file", str(folder / "token"), *asked)
        assert (taken.returncode, taken.stderr) == (0, ""), taken.stderr


def test_a_person_at_a_terminal(home: dict[str, str]) -> None:
    """Each question is answered by Enter, but for the model and the port."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("main", "setup"),
        env=home,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    seen = ""
    answers = {"Number [1]: ": "2\n", "[127.0.0.1]: ": "\n", "[9000]: ": "9321\n", "[Y/n] ": "\n"}
    try:
        while select.select([master], [], [], PATIENCE)[0]:
            try:
                seen += os.read(master, 4096).decode()
            except OSError:  # it has ended
                break
            for prompt in [one for one in answers if seen.endswith(one)]:
                os.write(master, answers.pop(prompt).encode())
        assert process.wait(PATIENCE) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert re.search(r"wrote \S+/llcuda\.toml", seen)
    assert "--server 127.0.0.1:9321" in seen
    assert "port = 9321" in Path(home["HOME"], ".config/llcuda/llcuda.toml").read_text()
