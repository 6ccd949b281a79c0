"""The user's systemd units: a service that says how it is, and the socket that starts it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from llcuda_net.util.address import Address

#: What the units are called.
NAME = "llcuda"

_SERVICE = """\
# Written by `llcuda setup`. Changes of your own: systemctl --user edit llcuda
[Unit]
Description=llcuda-server
Documentation=man:llcuda-server(1)

[Service]
# It says when it serves, what it does, when it reads its settings again and when it stops; and that
# its event loop turns, without which it is killed and started again.
Type=notify
WatchdogSec=60
# Until it says for the first time that it takes longer; a model may have to be pulled before.
TimeoutStartSec=15min
ExecStart={command}
# systemctl --user reload llcuda: users, upstreams and models are read again.
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
# 2: a setting or file is wrong, and a restart does not help.
RestartPreventExitStatus=2
RestartSec=1
# SIGTERM begins a drain; what has not ended after drain_seconds is continued at the next start.
# Only the server gets it: the engine is its child, and must outlive the drain.
KillMode=mixed
TimeoutStopSec=45
UMask=0077

# What it may do. What needs a namespace of its own (ProtectSystem=, PrivateTmp= ...) is left out:
# where users may make none, as on Ubuntu 24.04, the unit would not start. Not
# MemoryDenyWriteExecute: kernels are compiled while it runs.
NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK

[Install]
WantedBy=default.target
"""

_SOCKET = """\
# Written by `llcuda setup`. The port, which is open before the server is and while it starts anew:
# the first client starts it, and none is refused.
[Unit]
Description=llcuda-server's port

[Socket]
ListenStream={address}
NoDelay=yes
Backlog=4096
FileDescriptorName=llcuda

[Install]
WantedBy=sockets.target
"""


def service_text(config: Path, command: Sequence[str] | None = None) -> str:
    """The service.

    Args:
        config: the file with its settings.
        command: how the server is called; None: as it is installed here.
    """
    words = [*(server_command() if command is None else command), "--config", str(config)]
    return _SERVICE.format(command=" ".join(map(quoted, words)))


def socket_text(host: str, port: int) -> str:
    """The socket at which clients come in."""
    return _SOCKET.format(address=Address("127.0.0.1" if host == "localhost" else host, port))


def server_command() -> list[str]:
    """How systemd is to call llcuda-server: with the interpreter that runs now."""
    beside = shutil.which("llcuda-server", path=str(Path(sys.executable).parent))
    return [sys.executable, "-P", "-m", "llcuda_net.cli.server"] if beside is None else [beside]


def quoted(word: str) -> str:
    """A word of ExecStart=: systemd.service(5) on command lines, and systemd.unit(5) on %."""
    out = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    out = "".join(c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in out)
    plain = word and not any(c.isspace() or c in "\"'\\;" for c in word)
    return out if plain else f'"{out}"'
