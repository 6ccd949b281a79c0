"""One tool on one server: both as processes, and the server's own record afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools import synthetic_upstream
from tools.synthetic.pages import MODEL

from . import tokenizer
from .adapters import Job, Program, UnreadableError
from .cases import Case
from .figures import Recorded, Said, recorded

#: Seconds beyond its measuring in which a tool must have started, drained and written.
PATIENCE = 240
#: Characters of a tool's last words that are kept where it failed.
_TOLD = 300


@dataclass(slots=True)
class Run:
    """What came of it.

    Attributes:
        command: how the tool was called, its own folders left out.
        when: it began, UTC.
        load: of the machine then, as os.getloadavg tells the last minute.
        failed: why there are no figures; "" where there are.
    """

    case: str
    program: str
    command: list[str]
    when: str
    load: float
    failed: str = ""
    said: Said | None = None
    record: Recorded | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Run:
        """From what as_dict gave."""
        said, record = row["said"], row["record"]
        return cls(
            **{
                **row,
                "said": None if said is None else Said(**said),
                "record": None if record is None else Recorded(**record),
            }
        )


@dataclass(slots=True)
class Bench:
    """Makes runs."""

    seed: int = 1
    programs: dict[str, Path] = field(default_factory=dict)

    def run(self, case: Case, program: Program) -> Run:
        """One tool on a server of its own."""
        when, load = datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()[0]
        options = [*case.options, "--seed", str(self.seed), "--keepalive", "0", "--api", "openai"]
        with (
            TemporaryDirectory() as name,
            synthetic_upstream.running(*options, "--ctx", "1000000") as url,
        ):
            folder = Path(name)
            (out := folder / "out").mkdir()
            tokenizer.write(folder / "tokenizer")
            job = Job(case, url, MODEL, out, folder / "tokenizer", self.seed)
            arguments = program.arguments(job)
            shown = [program.command.rpartition("/")[2], *arguments]
            places = ((str(out), "OUT"), (str(folder), "."), (url, "URL"))
            for place, word in places:
                shown = [part.replace(place, word) for part in shown]
            run = Run(case.name, program.name, shown, when, load)
            command = [str(self.programs[program.name]), *arguments]
            words = _finish(command, program, folder, case.seconds + PATIENCE)
            try:
                run.said = program.read(out)
            except UnreadableError as error:
                run.failed = f"{error}; {words}" if words else str(error)
                return run
            rows = _get(url + "/truth/requests")["requests"]
            measured = run.said.counted + run.said.cut + run.said.failed
            run.record = recorded(rows, case.rate, measured)
            return run


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as reply:
        return json.load(reply)


def _finish(command: list[str], program: Program, folder: Path, seconds: float) -> str:
    """Run a tool to its end; its last words where that is not a good one."""
    environment = {**os.environ, **dict(program.environment), "NO_COLOR": "1"}
    with (folder / "words").open("w+b") as words:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its workers end with it
            )
        except OSError as error:
            return f"it did not start: {error.strerror}"
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code == 0:
            return ""
        words.seek(0)
        last = " ".join(words.read().decode("utf-8", "replace").split())[-_TOLD:]
        end = f"it had not ended after {seconds:g} s" if code is None else f"exit code {code}"
        return f"{end}: {last}"
