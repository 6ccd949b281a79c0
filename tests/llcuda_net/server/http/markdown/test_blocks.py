"""The blocks of an answer are the same however it came, and what is shown meanwhile is safe."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llcuda_net.server.http.markdown import growing, split
from llcuda_net.server.http.markdown.blocks import Blocks, blocks_of, text_blocks
from llcuda_net.server.http.markdown.render import to_html
from llcuda_net.storage.channels import BEGINNING, REASONING, TEXT, TOOL_CALL, Switch
from tests.llcuda_net.server.http.markdown.test_render import ATTACKS, Checked

_LINES = st.sampled_from(
    [
        *("a", "b c", "# h", "#", "---", "===", "***", "- ", "- a", "  b", "* c", "+ d", "1. e"),
        *(
            "12. f",
            "12 g",
            "2) h",
            "> q",
            ">",
            "> - r",
            "    code",
            "\tt",
            " \t ",
            "```",
            "```py x",
        ),
        *("~~~", "   ```", "  ~~~~", "````", "| a | b |", "|-|-|", "a | b", "--- | ---", "|1|2|"),
        *("[x]: https://e.org 't", "u'", "[x]", "[x]: <", "[x]: /u", "**b** c", "*", "**", "_i_"),
        *("\\[", "\\]", "$$", "$$ x", "x $$", "\\[ y \\]", "\\(z\\)", "$w$", "`", "&am", "p;"),
        *("- [ ] t", "   - n", "     m", "<b>", "\r", "\0", "\u2028", "\x0b", "1", ".", "-", "d."),
        *("- ```", "  > ```", "[y]:", "https://e.org", '"', "(t)", "![", "](", ")", "\\", "  "),
    ]
)
_ENDS = st.sampled_from(["\n", "\n", "\n", "\n\n", "", "", " ", "\r\n", "  \n", "\n\n\n"])
MARKDOWN = st.lists(st.tuples(_LINES, _ENDS).map("".join), max_size=14).map("".join)


def in_parts(text: str, cuts: list[int]) -> list[str]:
    """A text, cut at these positions."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


class Page:
    """What a reader shows of an answer: it does what it is told, and no more."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        self.open: dict[str, Any] | None = None

    def take(self, blocks: Blocks, *, render: bool) -> None:
        step = blocks.step(render=render)
        for block in step.final:
            assert block["n"] == len(self.blocks)
            self.blocks.append(block)
            self.open = None
        if step.closed:
            assert self.open is not None or step.final
            self.open = None
        if step.open is not None:
            if "more" in step.open:
                assert self.open is not None
                assert self.open["n"] == step.open["n"]
                self.open = appended(self.open, step.open["more"])
            else:
                self.open = step.open
        assert self.open is None or self.open["n"] == len(self.blocks)


def appended(block: dict[str, Any], more: str) -> dict[str, Any]:
    """As the page does it: at the end of the last text, behind which only blocks end."""
    if "text" in block:
        return {**block, "text": block["text"] + more}
    if block["html"].rstrip().endswith("</code></pre>"):
        at = block["html"].rindex("</code></pre>")
    else:
        ends = re.search(r"(</(p|li|ul|ol|blockquote|h[1-6])>\s*)*\Z", block["html"])
        assert ends is not None
        at = ends.start()
    shown = re.sub("<", "&lt;", re.sub("&", "&amp;", more)).replace(">", "&gt;")
    return {**block, "html": block["html"][:at] + shown + block["html"][at:]}


def checked(markup: str) -> str:
    """The text of what must be safe."""
    found = Checked()
    found.feed(markup)
    found.close()
    assert found.open == []
    return found.text


@given(MARKDOWN, st.lists(st.integers(0, 200), max_size=20))
@settings(max_examples=150, deadline=None)
@example("a\n#", [3])
@example("[x]: https://e.org 't\nu'\n\na", [22])
@example("- a\n\n- b\n", [6])
@example("1. a\n\n2. b\n", [7])
@example("- a\n\n  b\n", [6])
@example("a\r\nb", [2])
@example("```\na\n```", [7])
@example("a\n\\[\n- b\n\\]\n", [9])
def test_however_it_is_cut_the_blocks_are_the_same(text: str, cuts: list[int]) -> None:
    blocks = Blocks()
    found = []
    for part in in_parts(text, cuts):
        blocks.add(BEGINNING, part)
        found += blocks.step().final
    assert found + blocks.end().final == text_blocks(text)


@given(MARKDOWN)
@settings(max_examples=150, deadline=None)
@example("```\n  ")
@example("   ```\n\tt\n \tu\n  v\n")
def test_the_blocks_together_are_what_the_whole_text_is(text: str) -> None:
    if "]:" in text:  # a definition does not count for what is before it
        return
    assert "".join(block["html"] for block in text_blocks(text)) == to_html(text)


def shown(blocks: list[dict[str, Any]], open_: dict[str, Any] | None) -> str:
    """What a page shows, without the blanks that nobody sees."""
    markup = "".join(block["html"] for block in [*blocks, *([open_] if open_ else [])])
    return re.sub(r"[ \n]+(?=</?(?:p|li|ul|ol|blockquote|h\d|pre)\b)|[ \n]+\Z", "", markup)


@given(MARKDOWN, st.lists(st.integers(0, 200), max_size=20), st.lists(st.booleans(), max_size=20))
@settings(max_examples=150, deadline=None)
@example("_a_b", [3], [])
@example("**a.**b", [6], [])
@example("a &am p;", [5], [])
@example("a &amp;", [5], [])
@example("[a](https://e.org b)", [19], [])
@example("a [b]", [4], [])
@example("- a b", [3], [])
@example("1. a", [1, 2], [])
@example("a  b", [2, 3], [])
@example("# a #", [3], [])
@example("```\n``\n`````", [5, 6, 8, 9], [])
@example("  ```\n   a\n  b", [7, 8, 9, 12], [])
def test_what_is_appended_is_what_would_be_rendered(
    text: str, cuts: list[int], render: list[bool]
) -> None:
    if "]:" in text:  # it counts for what is before it as long as that is not final
        return
    page, blocks = Page(), Blocks()
    so_far = ""
    for part in in_parts(text, cuts):
        so_far += part
        blocks.add(BEGINNING, part)
        page.take(blocks, render=not render or render.pop())
        if not blocks.stale:
            fresh, other = Blocks(), Page()
            fresh.add(BEGINNING, so_far)
            other.take(fresh, render=True)
            assert shown(page.blocks, page.open) == shown(other.blocks, other.open)


@given(
    st.lists(st.sampled_from(ATTACKS) | MARKDOWN, max_size=5).map("".join),
    st.lists(st.integers(0, 500), max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_what_is_hostile_stays_harmless_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    page, blocks = Page(), Blocks()
    for part in in_parts(text, cuts):
        blocks.add(BEGINNING, part)
        page.take(blocks, render=len(part) % 3 != 0)
        if page.open is not None:
            checked(page.open["html"])
    for block in text_blocks(text):
        checked(block["html"])


@pytest.mark.parametrize("text", ATTACKS)
def test_each_attack_cut_anywhere(text: str) -> None:
    for at in range(min(len(text), 60)):
        blocks = Blocks()
        blocks.add(BEGINNING, text[:at])
        first = blocks.step()
        blocks.add(BEGINNING, text[at:])
        second = blocks.step()
        for block in [*first.final, first.open, *second.final, second.open, *blocks.end().final]:
            if block is not None and "html" in block:
                checked(block["html"])


@given(MARKDOWN, st.integers(0, 12), st.lists(st.integers(0, 200), max_size=10))
@settings(max_examples=150, deadline=None)
def test_a_reader_goes_on_with_the_block_that_it_lacks(
    text: str, have: int, cuts: list[int]
) -> None:
    blocks = Blocks(have)
    found = []
    for part in in_parts(text, cuts):
        blocks.add(BEGINNING, part)
        found += blocks.step().final
    assert found + blocks.end().final == text_blocks(text)[have:]


def test_each_channel_is_a_text_of_its_own() -> None:
    pieces = ["I *think", "* so\n", "**Yes", "**", '{"a"', ":1}", "", "and"]
    switches = [
        Switch(0, REASONING),
        Switch(2, TEXT),
        Switch(4, TOOL_CALL, 0, "call_1", "f"),
        Switch(6, TOOL_CALL, 1, "call_2", "g"),
        Switch(7, REASONING),
    ]
    assert blocks_of(pieces, switches) == [
        {"n": 0, "channel": "reasoning", "html": "<p>I <em>think</em> so</p>\n"},
        {"n": 1, "channel": "text", "html": "<p><strong>Yes</strong></p>\n"},
        {
            "n": 2,
            "channel": "tool_call",
            "index": 0,
            "id": "call_1",
            "name": "f",
            "text": '{"a":1}',
        },
        {"n": 3, "channel": "tool_call", "index": 1, "id": "call_2", "name": "g", "text": ""},
        {"n": 4, "channel": "reasoning", "html": "<p>and</p>\n"},
    ]


def test_a_tool_call_grows_by_its_text() -> None:
    blocks = Blocks()
    channel = Switch(0, TOOL_CALL, 0, "call_1", "f")
    blocks.add(channel, "")
    assert blocks.step(render=False).open == {
        "n": 0,
        "channel": "tool_call",
        "index": 0,
        "id": "call_1",
        "name": "f",
        "text": "",
    }
    blocks.add(channel, "{<b>")
    assert blocks.step(render=False).open == {"n": 0, "more": "{<b>"}
    assert not blocks.step(render=False)
    assert blocks.end().final[0]["text"] == "{<b>"


def test_an_open_fence_is_rendered_once_and_grows_by_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rendered: list[str] = []

    def counted(text: str, *rest: Any) -> Any:
        rendered.append(text)
        return to_html(text, *rest)

    monkeypatch.setattr(growing, "to_html", counted)
    blocks, page = Blocks(), Page()
    blocks.add(BEGINNING, "```python\n")
    page.take(blocks, render=True)
    rendered.clear()
    for number in range(5000):
        blocks.add(BEGINNING, f"print({number})\n")
        page.take(blocks, render=False)
    assert not rendered
    blocks.add(BEGINNING, "```\n")
    page.take(blocks, render=False)
    assert rendered == ["```python\n"]
    assert page.open is None
    (block,) = page.blocks
    assert block["html"].startswith('<pre><code class="language-python">print(0)\nprint(1)\n')
    assert block["html"].endswith("print(4999)\n</code></pre>\n")


def test_what_nothing_can_be_cut_off_of_is_cut_off_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 2000
    monkeypatch.setattr(split, "MAX_TEXT", most)
    for text in ("a" * 3 * most, "- a\n" * most, "> a\n" * most, "\n" * 3 * most):
        whole = text_blocks(text)
        blocks = Blocks()
        found = []
        for at in range(0, len(text), 1501):
            blocks.add(BEGINNING, text[at : at + 1501])
            found += blocks.final().final
        assert found + blocks.end().final == whole
        assert all(len(block["html"]) < 8 * most for block in whole)
        letters = "".join(checked(block["html"]) for block in whole)
        assert letters.count("a") == text.count("a")


def test_a_fence_beyond_all_measure_is_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "MAX_CODE", 100)
    monkeypatch.setattr(split, "MAX_TEXT", 50)
    text = "```c\n" + "12345678\n" * 25 + "x" * 250 + "\n```\n# a\n"
    whole = text_blocks(text)
    assert "".join(checked(block["html"]) for block in whole).replace("\n", "") == (
        "12345678" * 25 + "x" * 250 + "a"
    )
    assert all('<code class="language-c">' in block["html"] for block in whole[:-1])
    for size in (1, 7, 99, 100, 101):
        blocks = Blocks()
        found = []
        for at in range(0, len(text), size):
            blocks.add(BEGINNING, text[at : at + size])
            found += blocks.step().final
        assert found + blocks.end().final == whole


def test_a_definition_counts_for_what_is_behind_it() -> None:
    text = "[a]\n\n[a]: https://e.org\n\n[a]\n\n- [a]\n"
    links = [block["html"].count("href") for block in text_blocks(text)]
    assert links == [0, 1, 1]
    blocks = Blocks(2)  # those that are not rendered define as well
    blocks.add(BEGINNING, text)
    assert [block["html"].count("href") for block in blocks.end().final] == [1]
