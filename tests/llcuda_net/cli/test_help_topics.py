"""--help by topic: what matters fits on a screen, and nothing is out of reach."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pytest

from llcuda_net.cli.bench.tool import command as bench_tool
from llcuda_net.cli.common import Exit, Parser
from llcuda_net.cli.help_topics import MANY, Topics, by_topic
from llcuda_net.cli.main import main
from tools import man_pages

PAGES = sorted(path.stem for path in Path(man_pages.FOLDER).glob("*.1"))


def topics_of(parser: argparse.ArgumentParser) -> Topics | None:
    """Of a parser whose help is by topic."""
    found = getattr(parser._option_string_actions["--help"], "topics", None)
    assert found is None or isinstance(found, Topics)
    return found


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        one for one in parser._actions if one.option_strings and one.help is not argparse.SUPPRESS
    ]


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_a_command_with_many_options_has_topics(page: str) -> None:
    """Each option is in one of them, or in the short help."""
    parser = man_pages.parser_of(page)
    topics = topics_of(parser)
    if len(options(parser)) <= MANY:
        assert topics is None
        return
    assert topics is not None
    counted = Counter(
        action.dest if action.dest != argparse.SUPPRESS else action.option_strings[0]
        for group in topics.groups.values()
        for action in group._group_actions
        if action.option_strings
    )
    short = topics.short()
    for action in options(parser):
        flag = action.option_strings[-1]
        named = any(action in group._group_actions for group in topics.groups.values())
        assert named or flag in short, flag
    assert counted
    for flag in topics._shown & {*parser._option_string_actions}:
        assert flag in short
    assert len(short.splitlines()) < 110
    assert sum(line.startswith("  -") for line in short.splitlines()) <= 24
    assert len(short) < 0.75 * len(parser.format_help())


def test_what_is_shown_exists() -> None:
    for page in ("llcuda-server", "llcuda-client"):
        parser = man_pages.parser_of(page)
        topics = topics_of(parser)
        assert topics is not None
        assert topics._shown <= {*parser._option_string_actions}
    known = {
        flag
        for name in ("latency", "throughput", "scaling")
        for flag in man_pages.parser_of(f"llcuda-bench-{name}")._option_string_actions
    }
    topics = topics_of(man_pages.parser_of("llcuda-bench-latency"))
    assert topics is not None
    assert topics._shown <= known
    assert bench_tool("latency").prog == "llcuda bench latency"


def test_help_of_a_topic(capsys: pytest.CaptureFixture[str]) -> None:
    short = help_of(capsys, "serve", "--help")
    assert "--port N" in short
    assert "--transient-seconds" not in short
    assert "llcuda serve --model smollm2" in short
    storage = help_of(capsys, "serve", "--help", "storage")
    assert "--transient-seconds" in storage
    assert "--port" not in storage
    assert help_of(capsys, "serve", "-h", "time limits") == help_of(capsys, "serve", "-h", "time")
    assert "--gpu-layers" in help_of(capsys, "serve", "--help", "gpu")
    assert "--top-p" in help_of(capsys, "ask", "--help=--top-p")
    everything = help_of(capsys, "serve", "--help-all")
    assert everything == help_of(capsys, "serve", "--help", "all")
    assert len(everything) > len(short)
    assert "exit codes" in everything


def test_a_topic_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for word, said in (("stroage", "did you mean storage?"), ("zzzz", "listen, model, storage")):
        with pytest.raises(SystemExit) as end:
            main(["serve", "--help", word])
        assert end.value.code == Exit.USAGE
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_options_stay_as_they_were() -> None:
    parser = Parser(prog="x")
    group = parser.add_argument_group("a group of them")
    group.add_argument("--one", help="first")
    parser.add_argument("rest", nargs="*")
    topics = by_topic(parser, ("--help",), {"a group of them": "group"})
    assert parser.parse_args(["--one", "2", "b"]).one == "2"
    assert topics.words() == ["group", "all"]
    assert "usage: x [options] [rest]" in topics.short()
    assert "--one" not in topics.short()
    assert parser.format_help().index("--help-all") < parser.format_help().index("--one")
