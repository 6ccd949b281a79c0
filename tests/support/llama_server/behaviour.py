"""What a stand-in is told to be: an older build, one with a GPU, one that fails."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that `--list-devices` claims; sizes in MiB."""

    name: str = "CUDA0"
    description: str = "NVIDIA H200"
    total: int = 143_771
    free: int = 143_000


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a stand-in differs from a healthy CPU build of today.

    Attributes:
        version: what `--version` prints, on stderr as the real one.
        without: options that this build does not have.
        bare: options that take no value in this build, as `--flash-attn` did until autumn 2025.
        old_log: it says that it listens in the words of builds before 2026.
        devices: GPUs that it claims to find.
        fail: why no model loads, in the words of the real one.
        crash: it ends of SIGSEGV: at "help" on every look at it, at "load" in the middle of the
            load, at "ready" as soon as it listens.
        hang: where it stands still until it is killed.
        starts: only so many starts with a model behave as `fail`, `crash` and `hang` say; None:
            every one does.
    """

    version: str = (
        "version: 0.6.0-dev (build 11434, commit 0123456)\nbuilt with GNU 13.3.0 for Linux x86_64"
    )
    without: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    old_log: bool = False
    devices: tuple[Device, ...] = ()
    fail: Literal["no memory", "no GPU memory", "architecture", "split", "mmproj", None] = None
    crash: Literal["help", "load", "ready", None] = None
    hang: Literal["help", "load", None] = None
    starts: int | None = None

    def write(self, path: Path) -> None:
        """Tell the stand-in that reads this file."""
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, path: Path) -> Behaviour:
        """What the file says; a healthy one where there is none."""
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls()


#: A build of spring 2025: no shared cache, no memory for prompts, flash attention on or not at all.
OLDER = Behaviour(
    version="version: 5200 (0a1b2c3d)\nbuilt with cc (GCC) 13.3.0 for x86_64-linux-gnu",
    without=(
        "--kv-unified",
        "--kv-unified-per-slot",
        "--cache-ram",
        "--cors-origins",
        "--fit",
        "--ui",
        "--offline",
        "--chat-template-kwargs",
        "--load-mode",
    ),
    bare=("--flash-attn",),
    old_log=True,
)
