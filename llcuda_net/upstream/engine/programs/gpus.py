"""Which GPUs the machine has, whatever can use them: without a CUDA context, in a millisecond.

NVIDIA's driver lists its GPUs under /proc; in a container that has not that, its device files are
there. Others are only known to be there or not.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of this machine.

    Attributes:
        nvidia: the names of NVIDIA's.
        other: whether there may be another one that llama.cpp has a backend for.
        hidden: CUDA_VISIBLE_DEVICES hides NVIDIA's.
    """

    nvidia: tuple[str, ...] = ()
    other: bool = False
    hidden: bool = False

    @property
    def any(self) -> bool:
        """Whether a program could have one to use."""
        return self.other or (bool(self.nvidia) and not self.hidden)


def find_gpus(root: Path = _ROOT, environment: Mapping[str, str] | None = None) -> Gpus:
    """Look at the machine.

    Args:
        root: where its files are; another one in tests.
        environment: None for that of this process.
    """
    if environment is None:
        environment = os.environ
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return Gpus(
        nvidia=_nvidia(root),
        other=sys.platform == "darwin"
        or any((root / path).exists() for path in ("dev/kfd", "dev/dri")),
        # The driver ends the list at the first that is none: -1, or nothing.
        hidden=visible is not None and (not visible.strip() or visible.strip().startswith("-")),
    )


def _nvidia(root: Path) -> tuple[str, ...]:
    names = []
    try:
        for folder in sorted((root / "proc/driver/nvidia/gpus").iterdir()):
            text = (folder / "information").read_text(encoding="utf-8", errors="replace")
            model = re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE)
            names.append(model[1] if model else "NVIDIA GPU")
    except OSError:
        names = []
    if not names:
        devices = (root / "dev").glob("nvidia[0-9]*")
        names = ["NVIDIA GPU" for path in devices if path.name[6:].isdigit()]
    return tuple(names)
