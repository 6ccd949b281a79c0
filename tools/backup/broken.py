"""A backup that is wrong on purpose: what ends between its two halves is in neither."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from llcuda_net.storage.backup import moment
from llcuda_net.storage.backup.journal import JournalMoment

#: Seconds between the databases and the journal.
_PAUSE = 0.7


@contextmanager
def databases_first() -> Iterator[None]:
    """Have backups in this process lock nothing, and read the journal too late."""

    def late(folder: Path, *, quiet: bool) -> JournalMoment:
        time.sleep(_PAUSE)
        return JournalMoment(folder, quiet=quiet)

    with (
        patch.object(moment, "_lock", lambda path, stack: None),
        patch.object(moment, "JournalMoment", late),
    ):
        yield
