"""What `llcuda setup` finds on this machine: GPUs, an engine, models, systemd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llcuda_net.models.files.local_file import LocalFile
    from llcuda_net.upstream.engine.programs.choice import Choice
    from llcuda_net.upstream.engine.programs.gpus import Gpus

#: Exists where systemd is the machine's first process: sd_booted(3).
_BOOTED = Path("/run/systemd/system")
#: Seconds for systemctl to answer.
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is.

    Attributes:
        gpus: of this machine.
        engine: what would run models here, and why.
        models: those that generate text, those of our folder first.
        names: the short names of those that were pulled by one.
        fits: where each of these fits, as `llcuda models list` says it; empty: not known.
        manager: why there is no user's systemd; empty: there is one.
    """

    gpus: Gpus
    engine: Choice
    models: tuple[LocalFile, ...]
    names: dict[Path, str]
    fits: tuple[str, ...]
    manager: str


def look(folder: Path, engine: str) -> Survey:
    """Look at the machine.

    Args:
        folder: of our models; it need not exist.
        engine: the setting of that name.

    Raises:
        EngineError: the engine does not run here; one line.
    """
    from llcuda_net.cli.models.facts import Machine, estimates, fits
    from llcuda_net.cli.run_async import run_async
    from llcuda_net.models.files.elsewhere import everything
    from llcuda_net.models.files.memory import default_context
    from llcuda_net.models.pull.resolve import short_names
    from llcuda_net.upstream.engine.programs.choice import choose_program
    from llcuda_net.upstream.engine.programs.gpus import find_gpus
    from llcuda_net.upstream.model.gguf import Kind

    gpus = find_gpus()
    found = tuple(file for file in everything(folder) if file.is_model and file.kind is Kind.CHAT)
    machine = Machine.here()
    places = []
    for file in found:
        assert file.model is not None
        host, gpu = estimates(file, default_context(file.model), 4)
        places.append(fits(host, gpu, machine))
    return Survey(
        gpus,
        run_async(partial(choose_program, engine, gpus=gpus)),
        found,
        short_names(folder),
        tuple(places),
        no_manager(),
    )


def no_manager() -> str:
    """Why the user's systemd cannot be used here; empty: it can be."""
    if not _BOOTED.exists():
        return "systemd does not run this machine"
    if shutil.which("systemctl") is None:
        return "there is no systemctl on PATH"
    try:
        done = subprocess.run(
            ["systemctl", "--user", "show", "--property=Version", "--value"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"systemctl --user does not answer: {error}"
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        return f"the user's systemd cannot be reached: {why}"
    return ""


def is_taken(host: str, port: int) -> bool:
    """Whether something listens there already, or the address cannot be had."""
    if port == 0:
        return False
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError:
        return True
    return False


def user_name() -> str:
    """What the first user is called in the token file."""
    import getpass
    import re

    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9._@-]", "-", name)[:64] or "me"
