"""An engine program: what runs a model, and what it is known to have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Device:
    """What a program can compute with beside the CPU.

    Attributes:
        name: as the program calls it, such as CUDA0.
        description: of the hardware.
        total, free: bytes of its memory when it was asked; None where it does not say.
    """

    name: str
    description: str
    total: int | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """What runs a model.

    Attributes:
        path: of a llama-server; None: the built-in engine.
        version: as it calls itself.
        build: the number of its build of llama.cpp; None where it has none.
        takes: the options of its command line, each with what its help shows behind it, such as
            `FNAME`; none for the built-in engine, which has no such line.
        devices: GPUs and other accelerators that it can use; None: not known.
        unusable: why it does not run here; empty where it does, as far as is known.
    """

    path: Path | None
    version: str = ""
    build: int | None = None
    takes: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    devices: tuple[Device, ...] | None = None
    unusable: str = ""

    @property
    def builtin(self) -> bool:
        """Whether it is the built-in engine."""
        return self.path is None

    @property
    def name(self) -> str:
        """How to write it in a message."""
        return "the built-in engine" if self.path is None else str(self.path)

    @property
    def flags(self) -> Set[str]:
        """The options of its command line."""
        return self.takes.keys()

    @property
    def setting(self) -> str:
        """The value of `--engine` that chooses it."""
        return BUILTIN if self.path is None else str(self.path)

    @property
    def has_gpu(self) -> bool:
        """Whether it is known to compute with more than the CPU."""
        return bool(self.devices)

    def public_facts(self) -> dict[str, Any]:
        """What everybody may know of it: its file's name, but not its folder."""
        facts = self.facts()
        return {**facts, "engine": BUILTIN if self.path is None else self.path.name}

    def facts(self) -> dict[str, Any]:
        """What is known of it, in JSON's types."""
        devices = self.devices
        return {
            "engine": self.setting,
            "version": self.version,
            "build": self.build,
            "devices": None
            if devices is None
            else [
                {
                    "name": device.name,
                    "description": device.description,
                    "memory_total": device.total,
                    "memory_free": device.free,
                }
                for device in devices
            ],
            **({"unusable": self.unusable} if self.unusable else {}),
        }


def remedy_of(why: str) -> str:
    """What to do where the built-in engine cannot run, for the reason that its process gave."""
    others = "name a llama-server with --engine PATH, or give one's address with --upstream"
    missing = re.search(r"(lib[\w.+-]+?\.so[.\d]*): cannot open shared object file", why)
    if missing is None:
        return others
    package = " (Debian, Ubuntu: apt install libgomp1)" if "libgomp" in missing[1] else ""
    return f"install {missing[1]}{package}, or {others}"
