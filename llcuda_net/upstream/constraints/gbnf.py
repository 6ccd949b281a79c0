"""Reads GBNF, llama.cpp's grammar format, and refuses what llama.cpp cannot use.

The rules are those of llama.cpp's src/llama-grammar.cpp and grammars/README.md. It is stricter
where llama.cpp fails late or badly: a repetition {3,2} ends the engine's process, a class that no
character is in ends the answer with an error of the server, and behind a NUL it reads nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

#: Deepest nesting of parentheses: llama.cpp reads them recursively.
MAX_DEPTH = 1000
#: What one symbol may be multiplied by, as in llama.cpp.
MAX_REPETITION = 2000
#: Most symbols with all repetitions written out: llama.cpp takes 8 bytes for each, several times.
MAX_SYMBOLS = 200_000

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


class GrammarError(ValueError):
    """It is no grammar that llama.cpp takes; the message says where and why."""


class Chars(NamedTuple):
    """One character: one of these ranges, or none of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def has(self, code: int) -> bool:
        """Whether a code point is in it."""
        return any(low <= code <= high for low, high in self.ranges) is not self.negated


#: Any character.
ANY = Chars((), negated=True)


class Ref(NamedTuple):
    """Another rule, by its number."""

    rule: int


class TokenRef(NamedTuple):
    """A token of the vocabulary, whose text only the upstream knows: any text may be its."""


Symbol = Chars | Ref | TokenRef
Sequence = tuple[Symbol, ...]


@dataclass(slots=True)
class Grammar:
    """Rules by number, each a list of alternatives; `root` is where a text begins."""

    rules: list[list[Sequence]] = field(default_factory=list)
    root: int = 0


def parse(text: str) -> Grammar:
    """The grammar that a text spells.

    Raises:
        GrammarError: llama.cpp would not take it.
    """
    return _Parser(text).parse()


_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_REPEAT = re.compile(r"\{[ \t]*([0-9]+)[ \t]*(,[ \t]*([0-9]*)[ \t]*)?\}")
_TOKEN = re.compile(r"!?<(?:\[[0-9]{1,10}\]|[^\[>\r\n][^>\r\n]*)>")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX = {"x": 2, "u": 4, "U": 8}


class _Level:
    """What is read within one pair of parentheses, or of one rule.

    Attributes:
        alternatives: those that are complete.
        sequence: the one being read.
        last: where its last item begins; what follows may repeat it.
        factor: by how much that item is repeated already.
        rules_before: how many rules there were when it began.
    """

    def __init__(self, rule: int, rules_before: int) -> None:
        self.rule = rule
        self.rules_before = rules_before
        self.alternatives: list[Sequence] = []
        self.sequence: list[Symbol] = []
        self.last = 0
        self.factor = 1


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._symbols = 0
        self._numbers: dict[str, int] = {}
        self._rules: list[list[Sequence] | None] = []

    def parse(self) -> Grammar:
        if "\0" in self._text:
            self._at = self._text.index("\0")
            self._fail("has a NUL, behind which llama.cpp reads nothing")
        self._skip(lines=True)
        while self._at < len(self._text):
            self._rule()
            self._skip(lines=True)
        if not self._rules:
            raise GrammarError("has no rules")
        for name, number in self._numbers.items():
            if self._rules[number] is None:
                raise GrammarError(f"uses the rule {name}, which it does not define")
        if "root" not in self._numbers:
            raise GrammarError("has no rule named root")
        return Grammar([rule or [()] for rule in self._rules], self._numbers["root"])

    def _rule(self) -> None:
        name = self._name("the name of a rule")
        self._skip()
        if not self._text.startswith("::=", self._at):
            self._fail("needs ::= behind a rule's name")
        self._at += 3
        self._skip(lines=True)
        number = self._number(name)
        self._rules[number] = self._alternatives(number)
        if self._peek() not in ("\r", "\n", ""):
            self._fail("has something that does not belong there")

    def _alternatives(self, rule: int) -> list[Sequence]:
        """What stands behind ::=; parentheses by a list, not by recursion."""
        levels = [_Level(rule, len(self._rules))]
        while True:
            level = levels[-1]
            char = self._peek()
            if char == "|":
                self._at += 1
                self._skip(lines=True)
                self._close(level)
            elif char == "(":
                if len(levels) > MAX_DEPTH:
                    self._fail(f"has more than {MAX_DEPTH} parentheses in each other")
                self._at += 1
                self._skip(lines=True)
                before = len(self._rules)
                levels.append(_Level(self._new(), before))
            elif char == ")" and len(levels) > 1:
                self._at += 1
                self._close(level)
                self._rules[level.rule] = level.alternatives
                levels.pop()
                factor = max(1, len(self._rules) - level.rules_before)
                self._item(levels[-1], [Ref(level.rule)], factor)
                self._skip(lines=len(levels) > 1)
            elif self._symbol(level, char) or self._repetition(level, char):
                self._skip(lines=len(levels) > 1)
            elif len(levels) > 1:
                self._fail("needs a closing parenthesis")
            else:
                self._close(level)
                return level.alternatives

    def _close(self, level: _Level) -> None:
        level.alternatives.append(tuple(level.sequence))
        level.sequence = []
        level.last = 0
        level.factor = 1

    def _symbol(self, level: _Level, char: str) -> bool:
        """Read a literal, class, token or name, if there is one."""
        if char == '"':
            self._item(level, self._literal())
        elif char == "[":
            self._item(level, [self._class()])
        elif char == ".":
            self._at += 1
            self._item(level, [ANY])
        elif char in ("<", "!"):
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                self._fail("has no token such as <think> or <[1000]> where one begins")
            self._at = found.end()
            self._item(level, [TokenRef()])
        elif char and _NAME.match(char):
            self._item(level, [Ref(self._number(self._name("a name")))])
        else:
            return False
        return True

    def _item(self, level: _Level, symbols: list[Symbol], factor: int = 1) -> None:
        level.last = len(level.sequence)
        level.factor = factor
        self._count(len(symbols))
        level.sequence += symbols

    def _count(self, more: int) -> None:
        self._symbols += more
        if self._symbols > MAX_SYMBOLS:
            self._fail(f"has more than {MAX_SYMBOLS:,} symbols with its repetitions written out")

    def _literal(self) -> list[Symbol]:
        self._at += 1
        symbols: list[Symbol] = []
        while self._peek() != '"':
            code = self._char()
            symbols.append(self._some(Chars(((code, code),))))
        self._at += 1
        return symbols

    def _class(self) -> Chars:
        self._at += 1
        negated = self._peek() == "^"
        self._at += negated
        ranges = []
        while self._peek() != "]":
            low = high = self._char()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._char()
                if high < low:
                    self._fail(f"has a range from {low:#x} down to {high:#x}")
            ranges.append((low, high))
        self._at += 1
        if not ranges:
            self._fail("has an empty class []")
        return self._some(Chars(tuple(ranges), negated))

    def _some(self, chars: Chars) -> Chars:
        """Refuse a class that no character is in: an answer would end there with an error."""
        covered, last = 0, -1  # of the code points, with the surrogates, which are none
        for low, high in sorted([*chars.ranges, _SURROGATES]):
            covered += max(0, high - max(low - 1, last))
            last = max(last, high)
        surrogates = _SURROGATES[1] - _SURROGATES[0] + 1
        if covered == (_LAST + 1 if chars.negated else surrogates):
            self._fail("has a class that no character is in")
        return chars

    def _char(self) -> int:
        char = self._peek()
        if not char:
            self._fail("ends in the middle of a literal or class")
        self._at += 1
        if char != "\\":
            return ord(char)
        char = self._peek()
        self._at += 1
        if char in _HEX:
            digits = self._text[self._at : self._at + _HEX[char]]
            if not re.fullmatch(f"[0-9a-fA-F]{{{_HEX[char]}}}", digits):
                self._fail(f"needs {_HEX[char]} hexadecimal digits behind \\{char}")
            self._at += len(digits)
            if int(digits, 16) > _LAST:
                self._fail(f"has \\{char}{digits}, which is no character")
            return int(digits, 16)
        if char not in _ESCAPES:
            self._fail(f"has an unknown escape \\{char}")
        return ord(_ESCAPES[char])

    # -- repetitions --------------------------------------------------------------------------

    def _repetition(self, level: _Level, char: str) -> bool:
        """Read what repeats the last item, if it is there."""
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(char)
        if simple is not None:
            self._at += 1
            self._repeat(level, *simple)
            return True
        if char != "{":
            return False
        found = _REPEAT.match(self._text, self._at)
        if found is None:
            self._fail("needs {2}, {2,} or {2,5} where a brace begins")
        self._at = found.end()
        if max(len(digits or "") for digits in found.group(1, 3)) > 9:
            self._fail(f"repeats something more than {MAX_REPETITION} times")
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if least > MAX_REPETITION:
            self._fail(f"repeats something more than {MAX_REPETITION} times")
        if most is not None and most < least:
            self._fail(f"has a repetition {{{least},{most}}} that ends before it begins")
        self._repeat(level, least, None if most is not None and most > MAX_REPETITION else most)
        return True

    def _repeat(self, level: _Level, least: int, most: int | None) -> None:
        """Write a repetition out, as llama.cpp does: S{2,4} is S S (S (S)?)?."""
        item = tuple(level.sequence[level.last :])
        if not item:
            self._fail("has nothing to repeat before *, +, ? or {")
        times = most or least or 1
        if level.factor * times > MAX_REPETITION:
            self._fail(f"repeats something more than {MAX_REPETITION} times")
        level.factor *= times
        self._count(len(item) * (times + 1))
        del level.sequence[level.last :]
        level.sequence += item * least
        if most is None:
            rule = self._new()
            self._rules[rule] = [(*item, Ref(rule)), ()]
            level.sequence.append(Ref(rule))
            return
        tail: Sequence = ()
        for _ in range(most - least):
            rule = self._new()
            self._rules[rule] = [(*item, *tail), ()]
            tail = (Ref(rule),)
        level.sequence += tail

    # -- small parts --------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, *, lines: bool = False) -> None:
        found = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _name(self, what: str) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            self._fail(f"needs {what}")
        self._at = found.end()
        return found[0]

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = self._new()
        return self._numbers[name]

    def _new(self) -> int:
        self._rules.append(None)
        return len(self._rules) - 1

    def _fail(self, what: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        raise GrammarError(f"{what}, at line {line}, column {column}")
