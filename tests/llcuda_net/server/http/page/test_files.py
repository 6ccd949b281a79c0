"""GET / and /page/...: what a browser gets, with which headers, and what it never gets."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.server.http.page import files
from llcuda_net.server.http.page.assets import HEADERS, load
from tests.support.server.http_client import HttpPeer, http_rig

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@asynccontextmanager
async def page(**settings: Any) -> AsyncIterator[HttpPeer]:
    """A connection of a browser that has no token."""
    users = Users.parse("token-of-ann-12345 name=ann")
    async with http_rig(*files.ROUTES, users=users, **settings) as rig:
        yield rig.connect()


async def test_a_browser_gets_the_page_and_its_files(autojump_clock: trio.abc.Clock) -> None:
    async with page() as peer:
        for accept in (BROWSER, "Accept: */*", "X-Nothing: 1"):
            answer = await peer.ask("GET", "/", accept)
            assert (answer.status, answer.body) == (200, load().files["index.html"].body)
        for path, asset in load().files.items():
            answer = await peer.ask("GET", f"/page/{path}")
            if path == "index.html":
                assert answer.status == 404
                continue
            assert (answer.status, answer.body) == (200, asset.body)
            assert answer.headers["content-type"] == asset.type
            assert (
                HEADERS.items()
                <= {name: answer.headers.get(name.lower()) for name in HEADERS}.items()
            )


async def test_what_has_the_version_in_its_name_is_not_asked_for_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with page() as peer:
        for path, kept in (
            ("/", "no-cache"),
            ("/page/css/base.css", "no-cache"),
            (f"/page/v-{'0' * 24}/css/base.css", "no-cache"),
            (f"/page/{load().version}/css/base.css", "public, max-age=31536000, immutable"),
        ):
            answer = await peer.ask("GET", path)
            assert (answer.status, answer.headers["cache-control"]) == (200, kept)


async def test_a_program_is_told_where_the_api_is(autojump_clock: trio.abc.Clock) -> None:
    async with page() as peer:
        for accept in ("application/json", "application/json, text/plain, */*"):
            answer = await peer.ask("GET", "/", f"Accept: {accept}")
            assert json.loads(answer.body)["api"] == "/v1"
            assert "Accept" in answer.headers["vary"]


async def test_what_a_browser_has_is_not_sent_again(autojump_clock: trio.abc.Clock) -> None:
    async with page() as peer:
        plain = await peer.ask("GET", "/page/css/base.css")
        packed = await peer.ask("GET", "/page/css/base.css", "Accept-Encoding: br, gzip")
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        tags = [answer.headers["etag"] for answer in (plain, packed)]
        assert tags[0] != tags[1]
        for tag, coding in zip(tags, ("identity", "gzip"), strict=True):
            fields = (f"If-None-Match: {tag}", f"Accept-Encoding: {coding}")
            answer = await peer.ask("GET", "/page/css/base.css", *fields)
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["etag"] == tag
            assert "content-length" not in answer.headers
            assert answer.headers["content-security-policy"]
        answer = await peer.ask("GET", "/page/css/base.css", 'If-None-Match: "other"')
        assert answer.status == 200


async def test_head_says_what_get_would(autojump_clock: trio.abc.Clock) -> None:
    async with page() as peer:
        answer = await peer.ask("HEAD", "/")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == str(len(load().files["index.html"].body))
        assert (await peer.ask("POST", "/", body=b"{}")).status == 401


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/page/",
            "/page",
            "/page/../setup.cfg",
            "/page/%2e%2e/%2e%2e/setup.cfg",
            "/page/README.md",
        ),
        *(
            "/page/..%2f__init__.py",
            "/page/__init__.py",
            "/page//etc/passwd",
            "/page/css%2Fbase.css",
        ),
        *("/page/css/", "/page/css/base.css/", "/page/./css/base.css", "/page/%00", "/page/js"),
        *("/page/CSS/base.css", "/page/css/base.css%00.js", "/page/" + "a/" * 500, "/page/%ff"),
    ],
)
async def test_no_other_path_leads_to_a_file(path: str, autojump_clock: trio.abc.Clock) -> None:
    async with page() as peer:
        answer = await peer.ask("GET", path)
        assert answer.status in (400, 401, 404)
        assert answer.error["message"]


async def test_the_page_can_be_turned_off(autojump_clock: trio.abc.Clock) -> None:
    async with page(page=False) as peer:
        for path in ("/", "/page/js/main.js"):
            answer = await peer.ask("GET", path, BROWSER)
            assert (answer.status, answer.error["code"]) == (404, "not_found")
            assert "--no-page" in answer.error["message"]
