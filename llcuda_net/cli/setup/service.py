"""Handing the units to the user's systemd."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.setup.units import NAME

#: Seconds for systemctl; a server that runs may drain first.
_TIMEOUT = 120.0


def start(*, changed: bool) -> None:
    """Open the port now and at each login, with the units as they are now.

    Args:
        changed: whether settings or units are other ones than before: then a server that runs is
            stopped, and started by the next client.

    Raises:
        CommandError: systemctl refuses; one line.
    """
    _systemctl("daemon-reload")
    if changed:
        _systemctl("stop", f"{NAME}.service", f"{NAME}.socket")
    _systemctl("enable", "--now", f"{NAME}.socket")


def _systemctl(*words: str) -> None:
    command: Sequence[str] = ["systemctl", "--user", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        fail(f"{' '.join(command)}: {error}", Exit.REFUSED)
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        fail(f"{' '.join(command)}: {why}", Exit.REFUSED)
