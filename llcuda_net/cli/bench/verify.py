"""`llcuda bench verify`: whether records are whole, and whether they agree."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llcuda_net.cli.bench.tool import Tool, need_extra
from llcuda_net.cli.common import Exit, Parser, run_command
from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo, paint

PROG = "llcuda bench verify"
_DESCRIPTION = """\
Looks whether records are as their schema says, as they were written (digest), in agreement with
themselves, and, where the file of --requests lies beside them, with every request's times.

Of several records it says besides whether the others agree with the first: of the same machine,
model and workload, and every figure the same within a margin.
"""
_EPILOG = """\
examples:
  llcuda bench verify new.json
  llcuda bench verify mine.json yours.json
  llcuda bench verify --within 5 monday.json tuesday.json
  llcuda bench verify --json new.json        # ok: true, false, or null where it was not looked at

A figure agrees where the 95 % interval of the ratio lies within the margin. It differs where that
is not so and the difference is sure (Holm). Else it cannot be told: repeat more often.

exit codes: 0 all is well, 1 a record is damaged or two do not agree, 2 usage, or no record
"""
#: A line of what was looked at: whether it is well (None: not looked at), and what.
_Line = tuple[bool | None, str]


def make_parser(tool: Tool | None = None) -> Parser:
    """The command's options; it has one name."""
    out = Parser(
        prog=PROG, usage=f"{PROG} [options] FILE...", description=_DESCRIPTION, epilog=_EPILOG
    )
    out.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a record")
    out.add_argument(
        "--within",
        type=_percent,
        default=10.0,
        metavar="PERCENT",
        help="figures agree where they are surely no further apart (10)",
    )
    out.add_argument("--alone", action="store_true", help="do not say whether they agree")
    out.add_argument("--json", action="store_true", help="one JSON object per thing looked at")
    return out


def _percent(text: str) -> float:
    value = float(text.removesuffix("%"))
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"must be above 0, up to 100, not {text}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Verify them; returns the exit code."""
    args = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return run_command(PROG, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    need_extra()

    from llcuda_net.bench.report import document

    found = [document.read(path, trusting=True) for path in args.files]
    well = True
    usable = []
    for path, each in zip(args.files, found, strict=True):
        lines = list(_alone(path, each))
        sound = all(good is not False for good, _ in lines)
        usable.append(sound)
        well = well and sound
        _print([path], lines, as_json=args.json)
    if len(found) > 1 and not args.alone:
        for place, other in enumerate(found[1:], 1):
            both = [args.files[0], args.files[place]]
            if not (usable[0] and usable[place]):
                skipped = "not compared: one of them is damaged"
                _print(both, [(None, skipped)], as_json=args.json)
                continue
            lines = list(_together(found[0], other, args.within / 100))
            well = well and all(good is not False for good, _ in lines)
            _print(both, lines, as_json=args.json)
    return Exit.OK if well else Exit.REFUSED


def _print(of: list[Path], lines: list[_Line], *, as_json: bool) -> None:
    if as_json:
        for good, text in lines:
            echo(json.dumps({"of": [str(path) for path in of], "ok": good, "said": text}))
        return
    echo(f"{' and '.join(map(str, of))}:")
    words = {True: ("ok", "32"), False: ("no", "31"), None: ("--", "33")}
    for good, text in lines:
        word, colour = words[good]
        echo(f"  {paint(word, colour, sys.stdout)}  {text}", styled=True)


def _alone(path: Path, found: dict[str, Any]) -> Iterator[_Line]:
    """What can be said of a record by itself."""
    from llcuda_net.bench.record import schema
    from llcuda_net.bench.record.consistency import contradictions
    from llcuda_net.bench.report import document

    if wrong := schema.faults(found):
        yield from ((False, text) for text in wrong)
        return
    yield True, "it is as its schema says"
    if wrong := document.faults(found):
        yield from ((False, text) for text in wrong)
    else:
        yield True, "it is as it was written: its digest is right"
    wrong = contradictions(found)
    yield from ((False, text) for text in wrong)
    if not wrong:
        yield True, "it does not contradict itself"
    yield from _requests(path, found)
    for text in found["problems"]:
        yield None, f"it says of itself that it is INVALID: {text}"


def _requests(path: Path, found: dict[str, Any]) -> Iterator[_Line]:
    """Whether the figures are those of every request's times."""
    from llcuda_net.bench.record import recompute, requests

    told = found.get("requests")
    if told is None:
        yield None, "every request's times were not kept (--requests)"
        return
    beside = path.parent / Path(told["file"]).name
    if not beside.exists():
        yield None, f"every request's times are not here: {beside}"
        return
    if beside.suffix != ".jsonl":
        yield None, f"figures are computed again from .jsonl, not from {beside.name}"
        return
    try:
        records = requests.read(beside, told["sha256"], told["runs"])
    except ConfigError as error:
        yield False, str(error)
        return
    wrong = recompute.differences(found, records)
    yield from ((False, text) for text in wrong)
    if not wrong:
        yield True, f"its figures are those of the {told['count']:,} requests in {beside.name}"


def _together(old: dict[str, Any], new: dict[str, Any], within: float) -> Iterator[_Line]:
    """Whether two records agree."""
    from llcuda_net.bench.record.differences import notes, obstacles
    from llcuda_net.bench.statistics import compare

    hindered = obstacles(old, new)
    yield from ((False, text) for text in hindered)
    if not hindered:
        yield True, "they are of the same machine, model, workload and settings, as far as is told"
    yield from ((None, text) for text in notes(old, new))
    changes = compare.agreement(old["repetitions"], new["repetitions"], within)
    if not changes:
        yield None, "they have no figure in common"
    signs = {"agree": True, "differ": False, compare.CANNOT_TELL: None}
    for change, line in zip(changes, compare.lines(changes, []) if changes else [], strict=True):
        yield signs[change.verdict], line


if __name__ == "__main__":
    sys.exit(main())
