"""Reading the secret files that settings name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from llcuda_net.util.text_files import read_text


def read_secret(path: str, what: str) -> str:
    """The text of a file that nobody else should read; the log says so if others can.

    Args:
        what: it is, for errors.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    text = read_text(path, what)
    mode = open_to_others(path)
    if mode is not None:
        import structlog  # here, since clients need the rest of this module only

        log = structlog.get_logger(__name__)
        log.warning("secret_open_to_others", what=what, path=path, mode=mode, do="chmod 600")
    return text


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
