"""Markdown, as models write it, to HTML that a page may show as it is.

1. Raw HTML in the text stays text: the parser escapes it.
2. What the parser makes is cleaned again, by a parser of HTML that knows only the tags and
   attributes named here. No script, style, form, frame, id or event handler is among them.
3. Links lead to http, https and mailto only, and never to this server. They say `rel="nofollow
   noopener noreferrer"`.
4. An image is a link: to load one would tell its server who reads what, and when.
5. A text that is too long, too deep, or that would become too much, is shown as it was written, in
   one `pre`. Of 64 Ki characters made to be slow, none took more than a second or two.

6. Formulas stay as they were written, as code; see formulas.py.

All of it blocks: call it in a thread.
"""

from __future__ import annotations

import html
import re
from collections.abc import MutableMapping, Sequence
from functools import cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from llcuda_net.server.http.markdown.formulas import use_formulas

#: Characters of a text that is rendered.
MAX_TEXT = 64 << 10
#: Tokens of the parser, and characters in attributes, that a text may become: links by reference
#: repeat an address each time, and a row of a table is filled up with cells.
_MOST_TOKENS, _MOST_ATTRIBUTES = 64 << 10, 512 << 10
#: Brackets that may open: behind each the parser looks for a link, as deep as it may go.
_MOST_BRACKETS = 8 << 10
#: Levels of quotes and lists. What is deeper the parser leaves out.
_DEEPEST = 40

#: What may be in the HTML: tags, and the attributes of each.
TAGS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("p", "br", "hr", "blockquote", "pre", "em", "strong", "s"), frozenset()),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6", "ul", "li"), frozenset()),
    **dict.fromkeys(("table", "thead", "tbody", "tr"), frozenset()),
    "ol": frozenset({"start"}),
    "a": frozenset({"href", "title"}),
    "code": frozenset({"class"}),
    "th": frozenset({"align"}),
    "td": frozenset({"align"}),
}
SCHEMES = frozenset({"http", "https", "mailto"})
REL = "nofollow noopener noreferrer"
#: What the values of attributes must be.
_VALUES = {
    "href": re.compile(r"(?:https?://|mailto:)[^\s\x00-\x1f\x7f]+", re.IGNORECASE),
    "class": re.compile(r"language-[\w+#.-]{1,40}"),
    "align": re.compile(r"left|center|right"),
    "rel": re.compile(REL),
    "start": re.compile(r"\d{1,9}"),
    "title": re.compile(r".{1,1000}", re.DOTALL),
}
#: Where links lead that are written by reference: the parser's own, by their labels.
Definitions = MutableMapping[str, dict[str, Any]]
_ALIGN = re.compile(r"text-align:(left|center|right)")


def to_html(text: str, definitions: Definitions | None = None) -> str:
    """Safe HTML of a text in Markdown: CommonMark with tables, strikethrough and formulas.

    Args:
        definitions: where the links of earlier texts lead; those of this one are added.
    """
    return html_and_tokens(text, {} if definitions is None else definitions)[0]


def html_and_tokens(text: str, definitions: Definitions) -> tuple[str, Sequence[Token]]:
    """As `to_html`, and the tokens of the parser; none where it is shown as it was written."""
    if len(text) <= MAX_TEXT and text.count("[") <= _MOST_BRACKETS:
        tokens = _parser().parse(text, {"references": definitions})
        if _within(tokens):
            return _cleaned(_parser().renderer.render(tokens, _parser().options, {})), tokens
    return as_written(text), ()


def as_written(text: str) -> str:
    """Safe HTML that shows a text, whatever it is."""
    return f"<pre>{escaped(text)}</pre>"


def escaped(text: str) -> str:
    """A text for between two tags."""
    return html.escape(text, quote=False)


def define(text: str, definitions: Definitions) -> None:
    """Add the definitions of links that are in a text."""
    parser = _parser()
    parser.block.parse(text, parser, {"references": definitions}, [])


def block_tokens(text: str) -> Sequence[Token]:
    """The blocks of a text as the parser has them: what is in them is not parsed."""
    tokens: list[Token] = []
    parser = _parser()
    parser.block.parse(text, parser, {}, tokens)
    return tokens


def _cleaned(markup: str) -> str:
    return nh3.clean(
        markup,
        tags=set(TAGS),
        attributes={tag: set(names) for tag, names in TAGS.items() if names},
        attribute_filter=_filtered,
        url_schemes=set(SCHEMES),
        link_rel=REL,
    )


def _filtered(tag: str, name: str, value: str) -> str | None:
    # Whatever it raised would be passed over, and the attribute kept.
    wanted = _VALUES.get(name)
    return value if wanted is not None and wanted.fullmatch(value) else None


def _within(tokens: Sequence[Token]) -> bool:
    """Whether so much may be written."""
    count = size = 0
    for token in tokens:
        inner = token.children or ()
        count += 1 + len(inner)
        size += sum(len(str(value)) for one in (token, *inner) for value in one.attrs.values())
        if count > _MOST_TOKENS or size > _MOST_ATTRIBUTES or token.level >= _DEEPEST - 2:
            return False
    return True


class _Renderer(RendererHTML):
    """Writes images as links, and the alignment of cells as an attribute."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        token = tokens[idx]
        address = html.escape(str(token.attrs.get("src", "")))
        name = self.renderInlineAsText(token.children or [], options, env).strip()
        return f'<a href="{address}">{html.escape(name or "image")}</a>'

    def math_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        return f'<code class="language-math">{escaped(tokens[idx].content)}</code>'

    def math_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        return f'<pre><code class="language-math">{escaped(tokens[idx].content)}</code></pre>\n'

    def th_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        return self._cell(tokens, idx, options)

    def td_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        return self._cell(tokens, idx, options)

    def _cell(self, tokens: Sequence[Token], idx: int, options: OptionsDict) -> str:
        token = tokens[idx]
        found = _ALIGN.fullmatch(str(token.attrs.get("style", "")))
        token.attrs = {"align": found[1]} if found else {}
        return self.renderToken(tokens, idx, options, {})


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt(
        "commonmark", {"html": False, "maxNesting": _DEEPEST}, renderer_cls=_Renderer
    )
    use_formulas(parser)
    return parser.enable(["table", "strikethrough"])
