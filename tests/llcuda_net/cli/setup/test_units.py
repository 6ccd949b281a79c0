"""The user's units: read by systemd where it is installed, and by its rules here."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llcuda_net.cli.setup.units import quoted, server_command, service_text, socket_text

ROOT = Path(__file__).resolve().parents[4]
#: What both services have in common.
ALIKE = ("Type", "WatchdogSec", "TimeoutStartSec", "TimeoutStopSec", "KillMode", "ExecReload")
#: What a unit of a user may be refused with on some machines: it needs a namespace or a capability.
NAMESPACED = ("PrivateTmp", "ProtectSystem", "ProtectHome", "ProtectClock", "PrivateDevices")


def parsed(text: str) -> configparser.ConfigParser:
    """A unit; of keys that are given several times, the last."""
    out = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    out.optionxform = str  # type: ignore[assignment, method-assign]
    out.read_string(text)
    return out


def test_the_users_service_is_that_of_the_system_but_for_what_needs_root() -> None:
    ours = parsed(service_text(Path("/c.toml"), ["/bin/llcuda-server"]))["Service"]
    theirs = parsed((ROOT / "deploy/llcuda-server.service").read_text("utf-8"))["Service"]
    assert {key: ours[key] for key in ALIKE} == {key: theirs[key] for key in ALIKE}
    assert not set(NAMESPACED) & set(ours)
    assert ours["ExecStart"] == "/bin/llcuda-server --config /c.toml"
    assert ours["SystemCallFilter"] == theirs["SystemCallFilter"] == "@system-service"


def test_the_socket_listens_at_the_address() -> None:
    assert parsed(socket_text("localhost", 9000))["Socket"]["ListenStream"] == "127.0.0.1:9000"
    assert parsed(socket_text("::1", 9123))["Socket"]["ListenStream"] == "[::1]:9123"
    assert parsed(socket_text("0.0.0.0", 9000))["Socket"]["FileDescriptorName"] == "llcuda"


def test_the_command_is_that_of_this_environment(tmp_path: Path) -> None:
    command = server_command()
    assert Path(command[0]).is_absolute()
    done = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("llcuda-server ")


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/opt/llcuda", "/opt/llcuda"),
        ("/my models/a", '"/my models/a"'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ('a"b', '"a\\"b"'),
        ("a\nb", '"a\\x0ab"'),
        ("", '""'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, written: str) -> None:
    assert quoted(word) == written
    if word.isprintable() and "%" not in word and "$" not in word:
        assert shlex.split(written) == [word]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="of systemd, which is not installed"
)
@pytest.mark.parametrize("whose", ["user", "system"])
def test_systemd_finds_nothing_wrong(whose: str, tmp_path: Path) -> None:
    there = tmp_path / "units"
    there.mkdir()
    options = ["--user"] if whose == "user" else []
    names = ["llcuda.service", "llcuda.socket"]
    if whose == "user":
        folder = tmp_path / "with space"
        folder.mkdir()
        (there / names[0]).write_text(service_text(folder / "a.toml", [sys.executable]), "utf-8")
        (there / names[1]).write_text(socket_text("127.0.0.1", 9000), "utf-8")
    else:
        for name in names:
            text = (ROOT / "deploy" / name.replace("llcuda", "llcuda-server")).read_text("utf-8")
            text = text.replace("/opt/llcuda/bin/llcuda-server", sys.executable)
            (there / name).write_text(text, "utf-8")
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["systemd-analyze", *options, "verify", "--man=no", *(str(there / one) for one in names)],
        capture_output=True,
        text=True,
        env=runtime,
    )
    ours = [line for line in done.stderr.splitlines() if "llcuda" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
