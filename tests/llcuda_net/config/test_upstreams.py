"""Upstreams as an operator describes them."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS, UpstreamSpec, parse
from llcuda_net.errors import ConfigError

URL = "http://one:8080"


def names(value: Any) -> list[str]:
    return [spec.name for spec in parse(value, "upstream")]


def test_a_url_is_enough() -> None:
    (spec,) = parse(URL, "upstream")
    assert spec == UpstreamSpec(URL, URL)
    assert (spec.weight, spec.slots, spec.model) == (1.0, None, None)
    assert spec.roles == {COMPLETIONS, EMBEDDINGS}


@pytest.mark.parametrize(
    ("value", "count"), [("", 0), (" , ", 0), (URL, 1), (f"{URL}, http://two,", 2), ([], 0)]
)
def test_several_by_commas_or_in_a_list(value: Any, count: int) -> None:
    assert len(parse(value, "upstream")) == count


def test_a_table_says_more() -> None:
    table = {
        "url": URL,
        "name": "big",
        "weight": 2,
        "slots": 3,
        "model": "llama",
        "api-key-file": "key",
        "roles": ["completions"],
    }
    for value in (table, [table]):
        (spec,) = parse(value, "upstream")
        assert spec == UpstreamSpec(URL, "big", 2, 3, "llama", "key", frozenset([COMPLETIONS]))
    assert names([URL, table]) == [URL, "big"]


def test_a_name_holds_no_password() -> None:
    assert names("http://user:secret@one:8080/") == [URL]
    assert names([{"url": "http://user:secret@one:8080"}]) == [URL]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (7, "must be a URL, or a list of URLs or tables, not 7"),
        ([7], "number 1 must be a URL or a table, not 7"),
        ([URL, {"name": "x"}], "number 2: url is missing"),
        ({"url": URL, "wieght": 1}, "there is no key 'wieght'; keys are url, name, weight"),
        ({"url": ""}, "url must be a URL, not ''"),
        ({"url": 7}, "url must be a URL, not 7"),
        ({"url": URL, "name": "a b"}, "name must be 1 to 128 characters without spaces"),
        ({"url": URL, "name": "x" * 129}, "name must be 1 to 128 characters"),
        ({"url": URL, "weight": 0}, "weight must be a number above 0, not 0"),
        ({"url": URL, "weight": True}, "weight must be a number above 0"),
        ({"url": URL, "weight": float("nan")}, "weight must be a number above 0"),
        ({"url": URL, "weight": float("inf")}, "weight must be a number above 0"),
        ({"url": URL, "weight": "2"}, "weight must be a number above 0"),
        ({"url": URL, "slots": 0}, "slots must be a whole number from 1 on"),
        ({"url": URL, "slots": 1.5}, "slots must be a whole number from 1 on"),
        ({"url": URL, "model": ""}, "model must be a name"),
        ({"url": URL, "roles": []}, "roles must be a list of completions and embeddings"),
        ({"url": URL, "roles": ["chat"]}, "roles must be a list of completions and embeddings"),
        ({"url": URL, "roles": "completions"}, "roles must be a list"),
        ({"url": URL, "roles": [["completions"]]}, "roles must be a list"),
        ([URL, URL], f"two upstreams are called {URL}; give them other names"),
        ([URL, "http://user@one:8080"], "two upstreams are called"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(value, "upstream")
    line = str(caught.value)
    assert line.startswith("upstream")
    assert words in line
    assert "\n" not in line
