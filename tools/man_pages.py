"""Writes a man page for each command from its own parser, into docs/man.

The wheel installs them, so that `man llcuda-server` works where it is installed. A page holds what
--help says: the parser is the only place where an option is described. The format is that of
man(7), as the manual of groff describes it.
"""

from __future__ import annotations

import argparse
import configparser
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from llcuda_net.cli.bench.tool import command as bench_tool
from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo

_ROOT = Path(__file__).resolve().parent.parent
FOLDER = _ROOT / "docs/man"
#: The module of each page's parser; the pages of `llcuda bench` are made for a tool.
_MODULES = {
    "llcuda": "main",
    "llcuda-server": "server",
    "llcuda-client": "client.options",
    "llcuda-mpi": "batch.mpi",
    "llcuda-batch": "batch.batch",
    "llcuda-infer": "batch.infer",
    "llcuda-results": "results.command",
    "llcuda-models": "models.command",
    "llcuda-setup": "setup.command",
    "llcuda-store": "store.command",
    "llcuda-top": "top.command",
    "llcuda-doctor": "doctor",
    "llcuda-completion": "completion.command",
    "llcuda-bench": "bench.command",
    "llcuda-bench-latency": "bench.latency",
    "llcuda-bench-throughput": "bench.throughput",
    "llcuda-bench-scaling": "bench.scaling",
    "llcuda-bench-show": "bench.show",
    "llcuda-bench-compare": "bench.compare",
    "llcuda-bench-verify": "bench.verify",
    "llcuda-bench-workloads": "bench.workloads",
}
#: What stands in an epilog before a list, and becomes a heading.
_HEADINGS = ("examples", "environment", "exit codes", "commands")


def parser_of(page: str) -> argparse.ArgumentParser:
    """The parser that a page describes."""
    module = import_module(f"llcuda_net.cli.{_MODULES[page]}")
    make = getattr(module, "make_parser", None) or module.build_parser
    measures = page.startswith("llcuda-bench-")
    found: argparse.ArgumentParser = make(bench_tool(page.split("-")[-1])) if measures else make()
    return found


def page(name: str) -> str:
    """The text of a man page."""
    parser = parser_of(name)
    about = _sentences(parser.description or "")
    lines = [f'.TH "{name.upper()}" 1 "" "llcuda {version()}" "llcuda"', ".nh", ".SH NAME"]
    lines += [_text(f"{name} - {about[0].rstrip('.:')}"), ".SH SYNOPSIS", *_synopsis(parser)]
    lines += [".SH DESCRIPTION", *_paragraphs(parser.description or "")]
    lines += _options(parser, ".SH")
    lines += _epilog(parser.epilog or "")
    others = ", ".join(f"{other}(1)" for other in _MODULES if other != name)
    return "\n".join([*lines, ".SH SEE ALSO", _text(others), ""])


def version() -> str:
    """That of setup.cfg: the only place that says it."""
    settings = configparser.ConfigParser()
    settings.read(_ROOT / "setup.cfg")
    return settings["metadata"]["version"]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.:])\s", " ".join(text.split()))


def _synopsis(parser: argparse.ArgumentParser) -> list[str]:
    """The command, whether it has options, and what else it takes."""
    words = [rf"\fB{_text(parser.prog)}\fR", "[options]"]
    for action in parser._actions:
        if not action.option_strings and action.help is not argparse.SUPPRESS:
            what = _value(action)
            words.append(f"[{what} ...]" if action.nargs == "*" else what)
    return [" ".join(words)]


def _value(action: argparse.Action) -> str:
    shown = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    shown = " ".join(shown) if isinstance(shown, tuple) else shown
    return rf"\fI{_text(shown or action.dest.upper())}\fR"


def _options(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    """What each group of options, and each subcommand, says."""
    for group in parser._action_groups:
        shown = [one for one in group._group_actions if one.help is not argparse.SUPPRESS]
        below = [one for one in shown if isinstance(one, argparse._SubParsersAction)]
        shown = [one for one in shown if one not in below]
        if shown:
            yield f'{heading} "{_text((group.title or "options").upper())}"'
            for action in shown:
                yield from _option(action, parser)
        for action in below:
            for choice in action._choices_actions:
                sub = action.choices[choice.dest]
                yield f'.SH "{_text(sub.prog)}"'
                yield from _paragraphs(sub.description or choice.help or "")
                yield from _options(sub, ".SS")
                yield from _epilog(sub.epilog or "", ".SS")


def _option(action: argparse.Action, parser: argparse.ArgumentParser) -> Iterator[str]:
    value = "" if action.nargs == 0 else f" {_value(action)}"
    names = ", ".join(rf"\fB{_text(name)}\fR" for name in action.option_strings)
    yield ".TP"
    yield f"{names}{value}" if names else _value(action)
    yield _text(" ".join((action.help or "").split()) % {**vars(action), "prog": parser.prog})


def _epilog(text: str, heading: str = ".SH") -> Iterator[str]:
    """Paragraphs; what is indented keeps its lines, as examples and tables do."""
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        title, colon, rest = block.partition(":")
        if colon and title.strip() in _HEADINGS:
            yield f'{heading} "{title.strip().upper()}"'
            block = rest.lstrip(" ") if "\n" not in rest else rest.strip("\n")
        else:
            yield ".PP"
        for kept, lines in _runs(block.split("\n")):
            if kept:
                yield from (".nf", *lines, ".fi")
            else:
                yield from lines


def _runs(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """Lines in runs of indented ones, and of others."""
    run: list[str] = []
    kept = False
    for line in filter(str.strip, lines):
        if run and line.startswith(" ") != kept:
            yield kept, run
            run = []
        kept = line.startswith(" ")
        run.append(_text(line))
    if run:
        yield kept, run


def _paragraphs(text: str) -> Iterator[str]:
    for number, block in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield _text(" ".join(block.split()))


def _text(text: str) -> str:
    """Text in which nothing is a request or an escape of roff."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub("[^\x00-\x7f]", lambda found: rf"\[u{ord(found[0]):04X}]", text)
    return re.sub(r"^(?=[.'])", r"\\&", text)


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    return {f"{name}.1": page(name) for name in _MODULES}


def main() -> int:
    """Write all pages; returns the exit code."""
    Parser(
        description="Write the man pages of all commands from their parsers, into docs/man.",
        epilog="example: python tools/man_pages.py && man docs/man/llcuda.1",
    ).parse_args()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.1"):
        old.unlink()
    made = pages()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
    echo(f"{len(made)} pages in {FOLDER.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
