"""Upstreams as an operator describes them."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.config.upstreams import (
    COMPLETIONS,
    EMBEDDINGS,
    RERANK,
    BaseUrl,
    UpstreamSpec,
    parse,
)
from llcuda_net.errors import ConfigError

URL = "http://one:8080"


def names(value: Any) -> list[str]:
    return [spec.name for spec in parse(value, "upstream")]


def test_a_url_is_enough() -> None:
    (spec,) = parse(URL, "upstream")
    assert spec == UpstreamSpec(URL, URL)
    assert (spec.weight, spec.slots, spec.model) == (1.0, None, None)
    assert spec.roles == {COMPLETIONS, EMBEDDINGS, RERANK}


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
        ({"url": URL, "roles": []}, "roles must be a list of completions, embeddings and rerank"),
        (
            {"url": URL, "roles": ["chat"]},
            "roles must be a list of completions, embeddings and rerank",
        ),
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


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "authority", "shown"),
    [
        ("http://one", "one", 80, "", "one", "http://one"),
        ("HTTPS://One:443/", "one", 443, "", "one", "https://One:443"),
        ("https://one:80", "one", 80, "", "one:80", "https://one:80"),
        ("http://one:65535/a/b/", "one", 65535, "/a/b", "one:65535", "http://one:65535/a/b"),
        ("http://one:1/pre%20fix", "one", 1, "/pre%20fix", "one:1", "http://one:1/pre%20fix"),
        ("http://one/\xe4", "one", 80, "/%C3%A4", "one", "http://one/\xe4"),
        ("http://b\xfccher:8080", "xn--bcher-kva", 8080, "", "xn--bcher-kva:8080", None),
        ("http://[::1]:8080", "::1", 8080, "", "[::1]:8080", None),
        ("http://[0:0::2]/x", "::2", 80, "/x", "[::2]", None),
        ("http://me:pw@[::1]:8080/", "::1", 8080, "", "[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_url_and_its_parts(
    text: str, host: str, port: int, path: str, authority: str, shown: str | None
) -> None:
    url = BaseUrl.parse(text)
    assert (url.host, url.port, url.path, url.authority) == (host, port, path, authority)
    assert str(url) == (text if shown is None else shown)
    assert url.secure == text.lower().startswith("https")


@pytest.mark.parametrize(
    ("userinfo", "sent"),
    [
        ("me:s3cret", "bWU6czNjcmV0"),
        ("me", "bWU6"),
        ("me:", "bWU6"),
        ("m%3ae:p%40:%2f", None),
        ("me:p%40ss:w", "bWU6cEBzczp3"),
        ("me:p@ss", "bWU6cEBzcw=="),
        (":pw", "OnB3"),
        ("\xe4:\xfc", "w6Q6w7w="),
    ],
)
def test_user_and_password_are_kept_apart(userinfo: str, sent: str | None) -> None:
    if sent is None:
        with pytest.raises(ConfigError, match="its user holds a colon"):
            BaseUrl.parse(f"http://{userinfo}@host:8080")
        return
    url = BaseUrl.parse(f"http://{userinfo}@host:8080")
    assert url.authorization == f"Basic {sent}"
    assert str(url) == "http://host:8080"
    assert "Basic" not in repr(url)
    (spec,) = parse(f"http://{userinfo}@host:8080", "upstream")
    assert spec.name == "http://host:8080"
    assert "@" not in repr(spec)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "it must begin with http:// or https://"),
        ("ftp://host", "it must begin with http:// or https://"),
        ("me:s3cret@host:1", "it must begin with http:// or https://"),
        ("http://", "its host is missing"),
        ("http://me:s3cret@", "its host is missing"),
        ("http://:80", "its host is missing"),
        ("http://host:0", "its port must be 1 to 65535"),
        ("http://me:s3cret@host:65536", "its port must be 1 to 65535"),
        ("http://host:73616", "its port must be 1 to 65535"),
        ("http://host:-1", "its port must be 1 to 65535"),
        ("http://host:80x", "its port must be 1 to 65535"),
        ("http://host:\u0663", "its port must be 1 to 65535"),
        ("http://host:1:2", "it has two ports"),
        ("http://[::1", "its host is wrong"),
        ("http://[::g]", "its host is wrong"),
        ("http://[fe80::1%25eth0]", "a zone is not supported"),
        ("http://::1:80", "an IPv6 address without its brackets"),
        ("http://a..b", "its host is wrong"),
        ("http://a%20b", "its host is wrong"),
        ("http://" + "a" * 70, "its host is wrong"),
        ("http://host/?x=1", "it must end before ? and #"),
        ("http://host#", "it must end before ? and #"),
        ("http://host/a b", "a space, a backslash or a control character"),
        ("http://ho\nst", "a space, a backslash or a control character"),
        ("http://host\\@other", "a space, a backslash or a control character"),
        ("http://host/%zz", "a % in its path"),
        ("http://me:s3cret/x@host", "write / in a password as %2F"),
        ("http://me/s3cret@host", "write / in a password as %2F"),
    ],
)
def test_what_is_no_url_is_refused_at_the_start(text: str, why: str) -> None:
    for value in (text, {"url": text}):
        with pytest.raises(ConfigError) as caught:
            parse([value], "upstream")
        line = str(caught.value)
        assert line.startswith("upstream, number 1:")
        assert "is not a URL such as http://127.0.0.1:8080" in line
        assert why in line
        assert "s3cret" not in line
        assert "\n" not in line


def test_one_kind_of_credentials_per_upstream() -> None:
    with pytest.raises(ConfigError, match="only one of them can be sent"):
        parse({"url": "http://me:s3cret@host", "api_key_file": "key"}, "upstream")
