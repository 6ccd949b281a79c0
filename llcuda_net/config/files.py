"""Who may read the secret files that settings name."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def open_to_others(path: str) -> str | None:
    """The mode of a file that somebody else may read or change, as 644; None where nobody may.

    A group that the file is given to so that we can read it, as root:llcuda 640, is not somebody
    else.
    """
    try:
        found = Path(path).stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):  # a pipe of the shell's, say
        return None
    mode = stat.S_IMODE(found.st_mode)
    for_us = 0 if found.st_uid == os.geteuid() else stat.S_IRGRP
    return f"{mode:o}" if mode & 0o077 & ~for_us else None
