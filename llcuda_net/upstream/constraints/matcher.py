"""Whether a text is of a grammar's language, or the beginning of one that is.

As llama.cpp does it: a state is the set of stacks of what may come, and a character leads to the
next state. Stacks share their tails, each is made once, and so is each transition: within a string
of a JSON document a character costs one look-up. Repetitions are tail calls, so that stacks do not
grow with the text.
"""

from __future__ import annotations

from enum import Enum

from llcuda_net.upstream.constraints.gbnf import Chars, Grammar, Ref, Sequence, TokenRef

#: Most stacks in all, and in one state: beyond, a text cannot be checked in reasonable time.
MAX_STACKS = 500_000
MAX_STATE = 5_000


class Match(Enum):
    """How a text stands to a grammar."""

    WHOLE = "whole"
    BEGINNING = "beginning"
    NO = "no"


class TooComplexError(ValueError):
    """The grammar is too ambiguous to be followed."""


class _Stack:
    """What may come: the rest of an alternative, and what comes behind it; made once each."""

    __slots__ = ("at", "rest", "sequence")

    def __init__(self, sequence: Sequence, at: int, rest: _Stack | None) -> None:
        self.sequence = sequence
        self.at = at
        self.rest = rest


#: Stacks with a terminal on top; None is the empty one: the text may end here.
_State = tuple[_Stack | None, ...]


class Matcher:
    """Follows texts through one grammar."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._stacks: dict[tuple[int, int, _Stack | None], _Stack] = {}
        self._states: dict[frozenset[_Stack | None], _State] = {}
        self._next: dict[tuple[_State, str], _State] = {}

    def match(self, text: str) -> Match:
        """How a text stands to the grammar.

        Raises:
            TooComplexError: that takes too much.
        """
        state = self._closed([self._stack((Ref(self._grammar.root),), 0, None)])
        for char in text:
            found = self._next.get((state, char))
            if found is None:
                found = self._next[state, char] = self._step(state, ord(char))
            state = found
            if not state:
                return Match.NO
        return Match.WHOLE if None in state else Match.BEGINNING

    def _stack(self, sequence: Sequence, at: int, rest: _Stack | None) -> _Stack | None:
        """The stack that goes on at a place of an alternative; what is at its end is `rest`."""
        if at == len(sequence):
            return rest
        key = id(sequence), at, rest
        found = self._stacks.get(key)
        if found is None:
            if len(self._stacks) >= MAX_STACKS:
                raise TooComplexError
            found = self._stacks[key] = _Stack(sequence, at, rest)  # keeps the sequence's id
        return found

    def _step(self, state: _State, code: int) -> _State:
        after: list[_Stack | None] = []
        for stack in state:
            if stack is None:
                continue
            symbol = stack.sequence[stack.at]
            if isinstance(symbol, TokenRef):
                after.append(stack)  # more of the token's text may come
            elif isinstance(symbol, Chars) and symbol.has(code):
                after.append(self._stack(stack.sequence, stack.at + 1, stack.rest))
        return self._closed(after)

    def _closed(self, stacks: list[_Stack | None]) -> _State:
        """The state of these stacks, with rules on top replaced by what they may begin with."""
        seen: set[_Stack | None] = set()
        found: set[_Stack | None] = set()
        while stacks:
            stack = stacks.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if len(seen) > MAX_STATE:
                raise TooComplexError
            symbol = None if stack is None else stack.sequence[stack.at]
            if stack is None or not isinstance(symbol, Ref):
                found.add(stack)
            if stack is None:
                continue
            behind = stack.at + 1
            if isinstance(symbol, TokenRef):  # its text may be over, or empty
                stacks.append(self._stack(stack.sequence, behind, stack.rest))
            elif isinstance(symbol, Ref):
                rest = self._stack(stack.sequence, behind, stack.rest)
                stacks += [
                    self._stack(alternative, 0, rest)
                    for alternative in self._grammar.rules[symbol.rule]
                ]
        return self._states.setdefault(frozenset(found), tuple(found))
