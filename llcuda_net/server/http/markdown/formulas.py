r"""Formulas in Markdown: their TeX stays as it was written, and is shown as code.

Without this, Markdown would take `x_1 + x_2` for emphasis, and `\(` for a parenthesis.

- In a line: `\(…\)`, `\[…\]`, `$$…$$`, and `$…$`, where a dollar that is followed by a blank begins
  none, and one behind a blank or before a digit ends none: "$5 and $10" are two amounts.
- Of its own: lines from one that begins with `\[` or `$$` up to one with the end of it, or up to an
  empty line. That there is none is not known while the text grows, so its first line decides.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

#: Kinds of the parser's tokens.
BLOCK, INLINE = "math_block", "math_inline"
_ENDS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
_DOLLARS = re.compile(r"\$(?![\s$])((?:[^$\\\n]|\\.)++)\$(?![\d$])")


def use_formulas(parser: MarkdownIt) -> None:
    """Have a parser know formulas; its renderer must know their tokens."""
    parser.inline.ruler.before("escape", INLINE, _inline)
    interrupted = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("fence", BLOCK, _block, {"alt": interrupted})


def _inline(state: StateInline, silent: bool) -> bool:
    found = _formula_at(state.src, state.pos, state.posMax)
    if found is None:
        return False
    content, behind = found
    if not silent:
        token = state.push(INLINE, "code", 0)
        token.content = content
    state.pos = behind
    return True


def _formula_at(text: str, at: int, end: int) -> tuple[str, int] | None:
    """The formula that begins here, and the position behind it."""
    if text[at] not in "\\$":
        return None
    closing = _ENDS.get(text[at : at + 2])
    if closing is not None:
        stop = text.find(closing, at + 2, end)
        content = text[at + 2 : stop].strip() if stop > 0 else ""
        return (content, stop + 2) if content else None
    found = _DOLLARS.match(text, at, end)
    if found is None or found[1][-1].isspace():
        return None
    return found[1], found.end()


def _block(state: StateBlock, first: int, behind: int, silent: bool) -> bool:
    if state.is_code_block(first):
        return False
    line = _line(state, first)
    closing = _ENDS.get(line[:2])
    if closing is None or line[:2] == "\\(":
        return False
    rest = line[2:]
    closed = closing in rest
    if closed and rest.partition(closing)[2].strip():
        return False  # it is part of a paragraph
    if silent:
        return True
    last = first
    while not closed and last + 1 < behind and not state.isEmpty(last + 1):
        if state.sCount[last + 1] < state.blkIndent:
            break
        last += 1
        closed = closing in _line(state, last)
    text = state.getLines(first, last + 1, state.sCount[first], False).strip()
    content = text.removeprefix(line[:2])
    if closed and content.rstrip().endswith(closing):
        content = content.rstrip().removesuffix(closing)
    token = state.push(BLOCK, "code", 0)
    token.content = content.strip()
    token.map = [first, last + 1]
    token.meta = {"closed": closed}
    state.line = last + 1
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
