"""Rendered prompts: found while they are new, bounded in number and size."""

from __future__ import annotations

import pytest

from llcuda_net.upstream.prompts import rendered
from llcuda_net.upstream.prompts.rendered import RenderedPrompts


def test_the_same_is_found_for_a_while() -> None:
    prompts = RenderedPrompts()
    prompts.keep(b"a", "rendered a", 10.0)
    assert prompts.find(b"a", 10.0 + rendered.SECONDS) == "rendered a"
    assert prompts.find(b"a", 10.1 + rendered.SECONDS) is None
    assert prompts.find(b"b", 10.0) is None
    prompts.keep(b"a", "anew", 100.0)
    assert prompts.find(b"a", 100.0) == "anew"
    prompts.clear()
    assert prompts.find(b"a", 100.0) is None


def test_what_is_not_found_any_more_takes_no_memory() -> None:
    prompts = RenderedPrompts()
    prompts.keep(b"a", "xx", 0.0)
    prompts.keep(b"b", "yyy", 10.0)
    prompts.expire(rendered.SECONDS)
    assert repr(prompts) == "<RenderedPrompts 2, 5 characters>"
    prompts.expire(rendered.SECONDS + 0.1)
    assert repr(prompts) == "<RenderedPrompts 1, 3 characters>"
    assert prompts.find(b"b", 10.0) == "yyy"


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "MOST", 3)
    monkeypatch.setattr(rendered, "SIZE", 10)
    prompts = RenderedPrompts()
    for name in (b"a", b"b", b"c", b"d"):
        prompts.keep(name, "xx", 0.0)
    found = [name for name in (b"a", b"b", b"c", b"d") if prompts.find(name, 0.0)]
    assert found == [b"b", b"c", b"d"]
    prompts.keep(b"e", "y" * 7, 0.0)
    assert [name for name in (b"b", b"c", b"d", b"e") if prompts.find(name, 0.0)] == [b"d", b"e"]
    prompts.keep(b"f", "z" * 11, 0.0)  # more than all may have
    assert repr(prompts) == "<RenderedPrompts 0, 0 characters>"
