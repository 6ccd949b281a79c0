"""--help of a command with many options: those that matter first, the others by topic.

`--help` shows a few options, an example and the topics; `--help TOPIC` one group of options, or
the options whose names have that word; `--help-all` everything, as the man page does.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from llcuda_net.cli.common import Parser, nearest
from llcuda_net.util.terminal import echo

#: Options above which a command's --help is by topic.
MANY = 25
#: Lines of the epilog that a short help shows, at most: its examples.
_EXAMPLES = 7


class Topics:
    """The topics of a command: its groups of options, each by a word.

    Args:
        shown: the options of the short help.
        words: the word of each group, by its title.
    """

    def __init__(
        self, parser: argparse.ArgumentParser, shown: Sequence[str], words: Mapping[str, str]
    ) -> None:
        self._parser = parser
        self._shown = frozenset(shown)
        titled = [one for one in parser._action_groups if one.title in words and _visible(one)]
        self.groups = {words[one.title or ""]: one for one in titled}

    def __repr__(self) -> str:
        return f"<Topics {', '.join(self.groups)}>"

    def short(self) -> str:
        """The help that shows what matters."""
        return self._format(
            self._parser._action_groups,
            lambda action: (
                not action.option_strings or bool(self._shown & {*action.option_strings})
            ),
            self._parser.description or "",
            f"{self._list()}\n\n{self._examples()}",
        )

    def of(self, word: str) -> str | None:
        """The help of a topic, or of the options whose names have a word; None: there is nothing.

        Args:
            word: a topic, the title of its group, or an option.
        """
        name = word.strip().lower()
        by_title = {(one.title or "").lower(): one for one in self.groups.values()}
        group = self.groups.get(name) or by_title.get(name)
        if group is not None:
            return self._format([group], lambda _: True, "", self._rest())
        flag = name.lstrip("-")
        if not flag:
            return None
        found = [
            action
            for action in self._parser._actions
            if action.help is not argparse.SUPPRESS and flag in _words(action)
        ]
        if not found:
            return None
        return self._format(
            self._parser._action_groups, lambda action: action in found, "", self._rest()
        )

    def words(self) -> list[str]:
        """All topics."""
        return [*self.groups, "all"]

    def _format(
        self,
        groups: Iterable[argparse._ArgumentGroup],
        wanted: Any,
        about: str,
        below: str,
    ) -> str:
        formatter = self._parser._get_formatter()
        usage = self._parser.usage or f"%(prog)s [options]{_operands(self._parser)}"
        formatter.add_usage(usage, self._parser._actions, [])
        formatter.add_text(about)
        for group in groups:
            actions = [one for one in group._group_actions if wanted(one)]
            if actions:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(actions)
                formatter.end_section()
        formatter.add_text(below)
        return formatter.format_help()

    def _list(self) -> str:
        wide = max(map(len, self.groups))
        prog = self._parser.prog
        lines = [f"more: {prog} --help TOPIC, or --help WORD for options with it in their name"]
        for word, group in self.groups.items():
            title = "" if group.title == word else group.title
            count = f"({len(_visible(group))})"
            lines.append(f"  {word:<{wide}}  {f'{title} ' if title else ''}{count}")
        lines.append(f"  {'all':<{wide}}  everything: --help-all")
        return "\n".join(lines)

    def _rest(self) -> str:
        return f"{self._parser.prog} --help shows the options that matter and the topics"

    def _examples(self) -> str:
        """The first lines of the epilog's examples."""
        epilog = self._parser.epilog or ""
        first = re.split(r"\n\s*\n", epilog.strip("\n"), maxsplit=1)[0].splitlines()
        return "\n".join(first[: 1 + _EXAMPLES])


def by_topic(parser: Parser, shown: Sequence[str], words: Mapping[str, str]) -> Topics:
    """Make a parser's --help one by topic, once it has all its options.

    Args:
        shown: the options of the short help.
        words: the word of each group, by its title; a title that the parser lacks does no harm.
    """
    topics = Topics(parser, shown, words)
    old = parser._option_string_actions["--help"]
    for flag in old.option_strings:
        del parser._option_string_actions[flag]
    for actions in (parser._actions, parser._optionals._group_actions):
        actions.remove(old)
    parser.add_argument("-h", "--help", action=_HelpAction, nargs="?", topics=topics)
    parser.add_argument("--help-all", action=_HelpAction, nargs=0, topics=topics)
    for actions in (parser._actions, parser._optionals._group_actions):
        actions[:0] = actions[-2:]
        del actions[-2:]
    return topics


class _HelpAction(argparse.Action):
    """Print a help and exit."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, nargs: Any, topics: Topics
    ) -> None:
        everything = nargs == 0
        text = "show everything" if everything else "show this, or the options of a topic"
        super().__init__(
            option_strings,
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            nargs=nargs,
            metavar=None if everything else "TOPIC",
            help=text,
        )
        self.topics = topics
        self.completer = _completer(topics)  # what argcomplete asks

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: Any,
        values: Any,
        option: str | None = None,
    ) -> NoReturn:
        """Print it; the command ends."""
        if self.nargs == 0 or values == "all":
            text: str | None = parser.format_help()
        elif values is None:
            text = self.topics.short()
        else:
            text = self.topics.of(values)
        if text is None:
            near = nearest(values, self.topics.words())
            meant = f": did you mean {near}?" if near else f": {', '.join(self.topics.words())}"
            parser.error(f"--help has no topic {values!r}{meant}")
        echo(text, end="")
        parser.exit()


def _completer(topics: Topics) -> Any:
    def found(**_: Any) -> list[str]:
        return topics.words()

    return found


def _visible(group: argparse._ArgumentGroup) -> list[argparse.Action]:
    return [one for one in group._group_actions if one.help is not argparse.SUPPRESS]


def _words(action: argparse.Action) -> set[str]:
    """The names of an option, and the words that they are made of."""
    names = [one.lstrip("-") for one in action.option_strings]
    return {*names, *(word for name in names for word in name.split("-"))}


def _operands(parser: argparse.ArgumentParser) -> str:
    """What comes behind the options, as of `llcuda ask [options] [prompt]`."""
    words = []
    for action in parser._actions:
        if not action.option_strings and action.help is not argparse.SUPPRESS:
            name = str(action.metavar or action.dest)
            words.append(f" [{name}]" if action.nargs in ("*", "?") else f" {name}")
    return "".join(words)
