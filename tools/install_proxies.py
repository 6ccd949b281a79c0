#!/usr/bin/env python3
"""Installs what tests/proxies needs: nginx with its stream module, HAProxy, and Caddy.

They are those of Debian, installed where that can be done without asking; else it is said what to
install. None of them is started by this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

from llcuda_net.util.terminal import echo

#: What to install for each program.
PACKAGES = {
    "nginx": ("nginx-light", "libnginx-mod-stream"),
    "haproxy": ("haproxy",),
    "caddy": ("caddy",),
}
#: Where the stream module of nginx lies; Debian installs it apart.
_STREAM = "modules/ngx_stream_module.so"
#: Seconds for one command.
_PATIENCE = 1200.0


def program(name: str) -> str | None:
    """Its path; Debian keeps some outside an ordinary user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def modules() -> Path | None:
    """The folder that has nginx's `modules`."""
    for folder in (Path("/usr/lib/nginx"), Path("/usr/lib64/nginx")):
        if (folder / _STREAM).exists():
            return folder
    return None


def missing() -> list[str]:
    """Packages that are to be installed."""
    packages = [
        package for name, needed in PACKAGES.items() if program(name) is None for package in needed
    ]
    if "libnginx-mod-stream" not in packages and modules() is None:
        packages.append("libnginx-mod-stream")
    return packages


def main() -> int:
    """Install them; returns the exit code."""
    packages = missing()
    if not packages:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        echo(f"make: needed are {', '.join(packages)}: on Debian, apt install", file=sys.stderr)
        return 1
    echo(f"installing {', '.join(packages)}", flush=True)
    # The services that come with them are not started: the tests start their own.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *packages]
    try:
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(
                command,
                check=True,
                stdout=subprocess.DEVNULL,
                env=environment,
                timeout=_PATIENCE,
            )
    finally:
        if ours:
            policy.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
