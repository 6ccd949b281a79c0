"""Which `llama-server` a test runs: the real one where there is one, and the stand-in always."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: Names the binary; `make test-llama-server` sets it to the one that it has built.
VARIABLE = "LLCUDA_TEST_LLAMA_SERVER"


def real_llama_server() -> Path | None:
    """The binary that the variable names, else one on PATH."""
    named = os.environ.get(VARIABLE)
    found = named or shutil.which("llama-server")
    return Path(found).resolve() if found else None


def kinds() -> list[str]:
    """The kinds that tests can run here, for a fixture's `params`."""
    return ["stand-in"] + ["real"] * (real_llama_server() is not None)
