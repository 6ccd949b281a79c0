"""The files of the page in memory: which there are, and what a browser's headers ask for."""

from __future__ import annotations

import gzip
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.page.assets import POLICY, has_tag, load, takes_gzip


def test_they_are_read_once_with_their_types() -> None:
    found = load().files
    assert load().files is found
    assert found["index.html"].type == "text/html; charset=utf-8"
    assert found["js/main.js"].type == "text/javascript; charset=utf-8"
    assert found["css/base.css"].type == "text/css; charset=utf-8"
    assert found["icon.svg"].type.startswith("image/svg+xml")
    assert not {path for path in found if path.endswith((".py", ".md"))}


def test_each_has_one_tag_per_representation_and_packs_to_the_same() -> None:
    found = load().files
    tags = {asset.tag_of(packed=packed) for asset in found.values() for packed in (False, True)}
    assert len(tags) == 2 * len({asset.body for asset in found.values()})
    assert all(gzip.decompress(asset.packed) == asset.body for asset in found.values())


def test_a_path_with_the_version_names_its_contents_for_ever() -> None:
    assets = load()
    base = assets.files["css/base.css"]
    assert assets.find("css/base.css") == (base, False)
    assert assets.find(f"{assets.version}/css/base.css") == (base, True)
    assert assets.find(f"v-{'0' * 24}/css/base.css") == (base, False)  # of another version
    for path in ("v-0/css/base.css", f"{assets.version}", f"{assets.version}/", "index.html"):
        assert assets.find(path) is None
    assert assets.find(f"{assets.version}/{assets.version}/css/base.css") is None
    assert assets.find(f"{assets.version}/index.html") is None


def test_the_document_names_all_modules_by_this_version() -> None:
    assets = load()
    text = assets.files["index.html"].body.decode()
    named = re.findall(r'="/page/(v-[0-9a-f]{24})/([^"]+)"', text)
    assert {version for version, _ in named} == {assets.version}
    assert text.count("/page/") == len(named)
    modules = {path for path in assets.files if path.endswith(".js")}
    assert modules <= {path for _, path in named} <= assets.files.keys()


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        *(("gzip", True), ("gzip, deflate, br, zstd", True), ("br;q=1.0, gzip;q=0.8", True)),
        *(("GZIP", True), ("x-gzip", True), ("*", True), ("*;q=0.1", True), ("gzip ;q=1", True)),
        *(("", False), ("identity", False), ("deflate, br", False), ("gzip;q=0", False)),
        *(("gzip;q=0.000", False), ("*;q=0", False), ("gzip;q=0, *", False), ("gzipped", False)),
        *(("gzip;q", False), ("gzip;q=x", False), ("*;q=0, gzip", True)),
    ],
)
def test_who_takes_gzip(accepted: str, wanted: bool) -> None:
    assert takes_gzip(accepted) is wanted


@pytest.mark.parametrize(
    ("condition", "there"),
    [
        *(('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), (' "b",W/"a" ', True)),
        *(("a", False), ('"b"', False), ('"A"', False), ("", False), ('"a-gz"', False)),
    ],
)
def test_a_tag_that_the_browser_has(condition: str, there: bool) -> None:
    assert has_tag(condition, '"a"') is there


@given(st.text(max_size=200))
def test_no_header_is_too_odd(text: str) -> None:
    assert takes_gzip(text) in (True, False)
    assert has_tag(text, '"a"') in (True, False)


def test_the_policy_lets_nothing_inline_in_and_nothing_out() -> None:
    rules = dict(rule.partition(" ")[::2] for rule in POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
