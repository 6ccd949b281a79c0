"""The stand-in as a file that can be started, in a folder of the test's own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.llama_server.behaviour import Behaviour

_ROOT = Path(__file__).resolve().parents[3]
_SCRIPT = """#!{python}
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.support.llama_server.program import main
main(Path(__file__), sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class StandIn:
    """An executable that stands for `llama-server`.

    Attributes:
        path: of the executable.
        behaviour: what it was told to be when it was made.
    """

    path: Path
    behaviour: Behaviour

    def tell(self, **changes: Any) -> None:
        """From its next start on, be as told at first, but for these (see `Behaviour`)."""
        replace(self.behaviour, **changes).write(self.path.with_suffix(".behaviour"))

    def starts(self) -> list[int]:
        """The process ids of its starts with a model."""
        path = self.path.with_suffix(".starts")
        return [int(line) for line in path.read_text().split()] if path.exists() else []


def stand_in(folder: Path, behaviour: Behaviour | None = None, **told: Any) -> StandIn:
    """Make one named `llama-server` in the folder; `told`: fields of `Behaviour`."""
    path = folder / "llama-server"
    path.write_text(_SCRIPT.format(python=sys.executable, root=str(_ROOT)), encoding="utf-8")
    path.chmod(0o755)
    made = StandIn(path, replace(behaviour or Behaviour(), **told))
    made.tell()
    return made
