"""Which llcuda measured, from which commit, with which packages."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import llcuda_net

#: Distributions whose versions bear on the figures.
_PARTS = (
    *("llcuda-net", "trio", "httptools", "msgpack", "numpy", "scipy", "hdrhistogram"),
    "xllamacpp",
)
_TIMEOUT = 5.0


def versions() -> dict[str, str]:
    """The software that bears on the figures."""
    found = {"python": platform.python_version()}
    for name in _PARTS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def source() -> dict[str, Any]:
    """Which code ran: `commit`, whether files were `modified` since, and why that is not known."""
    root = Path(llcuda_net.__file__).resolve().parent.parent
    if (root / ".git").exists():
        commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
        if commit:
            modified = None if changed is None else bool(changed)
            silent = {} if modified is not None else {"modified": "git does not say"}
            return {"commit": commit, "modified": modified, "unknown": silent}
        why = "this is a clone, and git does not say its commit"
        return {"commit": None, "modified": None, "unknown": {"commit": why, "modified": why}}
    commit = _installed()
    if commit is not None:
        return {"commit": commit, "modified": False, "unknown": {}}
    why = "it was installed from a wheel, which does not name its commit"
    return {"commit": None, "modified": None, "unknown": {"commit": why, "modified": why}}


def _git(root: Path, *command: str) -> str | None:
    """What git says; None where it is not there, or refuses."""
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "--no-optional-locks", *command],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return found.stdout.strip()


def _installed() -> str | None:
    """The commit that pip noted (PEP 610), where it was installed from a repository."""
    try:
        text = metadata.distribution("llcuda-net").read_text("direct_url.json")
        return str(json.loads(text or "{}")["vcs_info"]["commit_id"])
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return None
