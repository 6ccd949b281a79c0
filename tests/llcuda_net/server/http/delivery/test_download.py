"""The names of files that browsers save, and what of Markdown exports share."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.delivery.download import fenced, headers_of, quoted


@pytest.mark.parametrize(
    ("title", "plain", "whole"),
    [
        ("What is a slot?", "what-is-a-slot.md", None),
        ("", "answer.md", None),
        ("..", "answer.md", None),
        ("../../etc/passwd", "etc-passwd.md", None),
        ('a"; filename="b.exe', "a-filename-b-exe.md", None),
        ("a\r\nSet-Cookie: x", "a-set-cookie-x.md", None),
        ("Grüße an Ärzte", "gr-e-an-rzte.md", "grüsse-an-ärzte.md"),
        ("什么是插槽?", "answer.md", "什么是插槽.md"),
        ("gpj.\u202eexe", "gpj-exe.md", None),
        ("word " * 50, "-".join(["word"] * 12) + ".md", None),
        ("x" * 200, "x" * 60 + ".md", None),
    ],
)
def test_names(title: str, plain: str, whole: str | None) -> None:
    expected = f'attachment; filename="{plain}"'
    found, star, name = headers_of(title, ".md")["Content-Disposition"].partition("; filename*=")
    assert found == expected
    assert (unquote(name.removeprefix("UTF-8''")) if star else None) == whole


@given(st.text())
def test_no_title_makes_another_header(title: str) -> None:
    headers = headers_of(title, ".json")
    assert headers["X-Content-Type-Options"] == "nosniff"
    pattern = r"""attachment; filename="[a-z0-9-]{1,60}\.json"(; filename\*=UTF-8''[\w.%-]+)?"""
    assert re.fullmatch(pattern, headers["Content-Disposition"], re.ASCII)


@given(st.text(alphabet="`~a\n"))
def test_a_fence_holds_any_text(text: str) -> None:
    first, *lines, last = fenced(text, "json").split("\n")
    assert first == f"{last}json"
    assert all(last not in line for line in lines)
    assert "\n".join(lines) == text.removesuffix("\n")


def test_a_quote_has_all_lines() -> None:
    assert quoted("a\n\nb") == "> a\n>\n> b"
