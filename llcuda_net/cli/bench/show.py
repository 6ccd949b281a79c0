"""`llcuda bench show`: what records say, in several forms."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llcuda_net.cli.bench.tool import Tool, need_extra, tell
from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.cli.tables import figures
from llcuda_net.util.terminal import echo

PROG = "llcuda bench show"
_DESCRIPTION = """\
Shows records that `llcuda bench latency|throughput|scaling --json FILE` wrote: the table as when it
was measured, with what it was measured on.
"""
_EPILOG = """\
examples:
  llcuda bench show new.json
  llcuda bench show --line *.json >> RESULTS.md
  llcuda bench show --badge speed.svg new.json
  llcuda bench show --html new.html new.json

exit codes: 0 shown, 2 usage, or a file is no record
"""


def make_parser(tool: Tool | None = None) -> Parser:
    """The command's options; it has one name."""
    out = Parser(
        prog=PROG, usage=f"{PROG} [options] FILE...", description=_DESCRIPTION, epilog=_EPILOG
    )
    out.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a record")
    form = out.add_mutually_exclusive_group()
    form.add_argument(
        "--line", action="store_true", help="a table in Markdown, a row for each record"
    )
    form.add_argument("--json", action="store_true", help="the records in one JSON list")
    form.add_argument(
        "--badge", type=Path, metavar="FILE.svg", help="the first figure as a picture"
    )
    form.add_argument("--html", type=Path, metavar="FILE", help="the page, as when it was measured")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Show them; returns the exit code."""
    args = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return run_command(PROG, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    need_extra()

    from llcuda_net.bench.report import document

    if len(args.files) > 1 and (args.badge or args.html):
        fail("--badge and --html take one record")
    found = [document.read(path) for path in args.files]
    if args.line:
        return _lines(found)
    if args.json:
        echo(json.dumps(found, indent=1, ensure_ascii=False))
    elif args.badge is not None:
        from llcuda_net.bench.record.badge import badge

        _save(args.badge, badge(found[0]))
    elif args.html is not None:
        from llcuda_net.bench.report.page import write

        write(args.html, _page(found[0]))
    else:
        for number, (path, each) in enumerate(zip(args.files, found, strict=True)):
            if number:
                echo("")
            for line in [*about(str(path), each), ""]:
                echo(line)
            for line in table(each):
                echo(line, styled=True)
            tell(each)
    return Exit.OK


def about(name: str, found: dict[str, Any]) -> list[str]:
    """What a record is of, in words."""
    from llcuda_net.bench.record import headline

    source = found["source"]
    llcuda = f"llcuda {found['versions'].get('llcuda-net', '')}"
    if source["commit"]:
        llcuda += f" ({source['commit'][:12]}{', modified' if source['modified'] else ''})"
    told = [
        f"{name}: {found['measurement']}, {found['when']}, {llcuda}",
        " ".join(found["command"]),
        f"on {headline.machine(found)}, {found['machine']['system']}",
    ]
    return [*told, f"note: {found['note']}"] if "note" in found else told


def table(found: dict[str, Any]) -> list[str]:
    """The table, as when it was measured."""
    from llcuda_net.bench.report import latency, scaling, throughput

    kinds = {
        "latency": latency.lines,
        "throughput": throughput.lines,
        "scaling": scaling.lines,
    }
    return kinds[found["measurement"]](found, figures)


def _page(found: dict[str, Any]) -> str:
    from llcuda_net.bench.report import latency_page, scaling_page, throughput_page

    kinds = {
        "latency": latency_page.page,
        "throughput": throughput_page.page,
        "scaling": scaling_page.page,
    }
    return kinds[found["measurement"]](found)


def _lines(found: list[dict[str, Any]]) -> int:
    from llcuda_net.bench.record import headline

    kinds = dict.fromkeys(each["measurement"] for each in found)
    for number, kind in enumerate(kinds):
        if number:
            echo("")
        for line in headline.table([each for each in found if each["measurement"] == kind]):
            echo(line)
    return Exit.OK


def _save(path: Path, text: str) -> None:
    """Write a small file; `-` is standard output."""
    if str(path) == "-":
        echo(text, end="")
        return
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}")


if __name__ == "__main__":
    sys.exit(main())
