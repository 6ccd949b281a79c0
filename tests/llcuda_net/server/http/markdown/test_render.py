"""Markdown becomes HTML in which nothing can be run, loaded or mistaken."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.server.http.markdown import render
from llcuda_net.server.http.markdown.render import MAX_TEXT, REL, SCHEMES, TAGS, to_html

#: Tags of which there is no end.
_VOID = {"br", "hr"}


class Checked(HTMLParser):
    """Reads HTML as strictly as its reader may: every tag and attribute must be a known one."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        for name, value in attrs:
            assert name in TAGS[tag] or (tag, name) == ("a", "rel"), (tag, name)
            assert value is not None
            if name == "href":
                assert value.partition(":")[0].lower() in SCHEMES, value
                self.links.append(value)
            elif name == "class":
                assert re.fullmatch(r"language-[\w+#.-]+", value)
            elif name == "align":
                assert value in ("left", "center", "right")
        if tag == "a":
            assert ("rel", REL) in attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag not in _VOID
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration: {decl}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def checked(text: str) -> Checked:
    """What is in the HTML of a text, which must be safe."""
    found = Checked()
    found.feed(to_html(text))
    found.close()
    assert found.open == []
    return found


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("*b* **c**", "<p><em>b</em> <strong>c</strong></p>"),
        ("~~d~~ `e<f>`", "<p><s>d</s> <code>e&lt;f&gt;</code></p>"),
        ("# A\n\n> b", "<h1>A</h1>\n<blockquote>\n<p>b</p>\n</blockquote>"),
        ("```c++ x\n<b>\n```", '<pre><code class="language-c++">&lt;b&gt;\n</code></pre>'),
        ("    plain", "<pre><code>plain\n</code></pre>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        (
            "|a|b|c|\n|:-|:-:|-|",
            (
                '<table>\n<thead>\n<tr>\n<th align="left">a</th>\n<th align="center">b</th>\n'
                "<th>c</th>\n</tr>\n</thead>\n</table>"
            ),
        ),
        (
            "|a|\n|-:|\n|b|",
            (
                '<table>\n<thead>\n<tr>\n<th align="right">a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n'
                '<td align="right">b</td>\n</tr>\n</tbody>\n</table>'
            ),
        ),
        (
            '[a](https://e.org/?x=1&y=2 "t")',
            f'<p><a href="https://e.org/?x=1&amp;y=2" title="t" rel="{REL}">a</a></p>',
        ),
        ("[a][1]\n\n[1]: mailto:x@e.org", f'<p><a href="mailto:x@e.org" rel="{REL}">a</a></p>'),
        ("<https://e.org>", f'<p><a href="https://e.org" rel="{REL}">https://e.org</a></p>'),
        # An image would be loaded by whoever looks at it.
        (
            "![a *b*](https://e.org/x.png)",
            f'<p><a href="https://e.org/x.png" rel="{REL}">a b</a></p>',
        ),
        ("![](https://e.org/x.png)", f'<p><a href="https://e.org/x.png" rel="{REL}">image</a></p>'),
        ("a <b>c</b> &lt;", "<p>a &lt;b&gt;c&lt;/b&gt; &lt;</p>"),
        ("", ""),
    ],
)
def test_what_becomes_of_markdown(text: str, markup: str) -> None:
    assert to_html(text).strip() == markup
    checked(text)


#: What has been tried elsewhere: each must come out as text, or as nothing that does anything.
ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert&#40;1)</script>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<style>@import 'https://e.org/x.css';</style>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?php echo 1 ?>",
    "<base href='https://e.org/'>",
    "<form action='https://e.org'><input name=a><button>x",
    "<div id=getElementById><p class=x style='position:fixed'>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java\tscript:alert(1))",
    "[a](<java\nscript:alert(1)>)",
    "[a](&#106;avascript:alert(1))",
    "[a](&#x6A&#x61vascript:alert(1))",
    "[a](%6aavascript:alert(1))",
    "[a](\x01javascript:alert(1))",
    "[a](\u00a0javascript:alert(1))",
    "[a](vbscript:x)",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "[a](data:image/svg+xml,<svg onload=alert(1)>)",
    "[a](file:///etc/passwd)",
    "[a](blob:https://e.org/1)",
    "[a](/v1/generations/x/cancel)",
    "[a](//e.org/x)",
    "[a](?x)",
    "[a](#top)",
    "[a](https&colon;//e.org)",
    "<javascript:alert(1)>",
    "<data:text/html,x>",
    "[a]: javascript:alert(1)\n\n[a]",
    "[a]: https://e.org 'x\" onmouseover=alert(1) y=\"'\n\n[a]",
    '[a](https://e.org "x\' onmouseover=alert(1)")',
    '[a](https://e.org/"onmouseover="alert(1))',
    "![a](javascript:alert(1))",
    "![a](data:image/png;base64,iVBORw0KGgo=)",
    '![a" onerror="alert(1)](https://e.org/x.png)',
    "![![![a](https://e.org/1)](https://e.org/2)](javascript:alert(1))",
    "[![a](javascript:x)](javascript:y)",
    '```"><script>alert(1)</script>\n```',
    '```x" onclick=alert(1) y\n```',
    "```&quot;&gt;&lt;script&gt;\n```",
    "~~~language-a b\n~~~",
    "`</code><script>alert(1)</script>`",
    "|a\n|-\n|<script>alert(1)</script>",
    '|a|\n|:-:" onclick=x|\n|b|',
    "99999999999999. a",
    '<https://e.org/"onclick=alert(1)>',
    '<a@e.org"onclick=alert(1)>',
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\<script>alert(1)\\</script>",
    "a\x00<script>\x00alert(1)</script>",
    "\u202e<script>",
    "\ud7ff\ufeff<\u0000svg>",
    "<p>" * 500,
    "</p></pre></code>" * 50,
    "*a **b *c **" * 50,
]


@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_come_to_nothing(text: str) -> None:
    checked(text)
    for around in ("> {}", "- {}", "*{}*", "[{}](https://e.org)", "|a|\n|-|\n|{}|", "```\n{}"):
        checked(around.format(text))


def test_only_what_leads_elsewhere_is_a_link() -> None:
    kept = ["https://e.org/a", "HTTP://e.org", "mailto:a@e.org"]
    assert checked(" ".join(f"[x]({one})" for one in kept)).links == kept
    for gone in ("ftp://e.org", "tel:1", "//e.org", "/a", "a", "#a", "?a", "javascript:1"):
        assert checked(f"[x]({gone})").links == []


_PIECES = st.sampled_from(
    [
        *ATTACKS,
        *"<>&\"'`*_~[]()!#|:-=\\ \n\t\x00",
        "\n\n",
        "```",
        "](",
        "&#",
        "https://e.org/",
        "<!--",
        "on",
    ]
)


@given(st.lists(_PIECES | st.text(max_size=5), max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
def test_whatever_a_model_writes(text: str) -> None:
    checked(text)


@given(st.text(alphabet="ab <>&*`[]()!\n", max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_word_is_lost(text: str) -> None:
    """Marks may go, and addresses of links; letters outside of links stay."""
    if "[" not in text and "<" not in text:
        letters = [c for c in text if c in "ab"]
        assert [c for c in checked(text).text if c in "ab"] == letters


def test_what_would_be_too_much_is_shown_as_it_was_written() -> None:
    many = {
        "long": "a" * (MAX_TEXT + 1),
        "brackets": "[" * MAX_TEXT,
        "deep quotes": "> " * 1000 + "a",
        "deep lists": "".join("  " * i + "- a\n" for i in range(200)),
        "one address again and again": f"[a]: https://e.org/{'x' * 30_000}\n\n" + "[a]\n" * 100,
        "cells": "|" + "a|" * 1000 + "\n|" + "-|" * 1000 + "\n" + "|\n" * 1000,
    }
    for name, text in many.items():
        found = to_html(text)
        assert found.startswith("<pre>"), name
        assert checked(text).text == text, name


def test_a_text_that_is_shown_as_it_was_written_is_safe() -> None:
    text = "<script>alert('&amp;')</script>" * 10_000
    assert checked(text).text == text


def test_what_a_filter_does_not_know_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in it would be passed over, and the attribute kept."""
    assert render._filtered("a", "onclick", "x") is None
    assert render._filtered("p", "id", "x") is None
