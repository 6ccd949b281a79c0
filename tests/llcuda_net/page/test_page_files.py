"""The files of the page keep to their contract: small, of this host alone, and nothing inline."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llcuda_net.server.http.page import assets

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "llcuda_net/page"
SERVED = {path: FOLDER / path for path in assets.load().files}
#: Bytes of all files together, as browsers get them (gzip), and lines of one module.
MOST_BYTES, MOST_LINES = 150_000, 300
#: The names of XML's vocabularies are no addresses: nothing is asked for there.
NAMES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML")
#: Ways from a string to markup or to code. The one that is allowed is in core/dom.js.
SINKS = re.compile(
    r"\.(inner|outer)HTML\b|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser"
    r"|setHTML|\beval\(|new Function\b|\bset(Timeout|Interval)\(\s*[\"'`]|srcdoc|javascript:"
)
IN_PLACE = re.compile(r"setAttribute\(\s*[\"'](style|on\w+)[\"']|\bstyle:\s*[\"'`]")


def test_all_of_it_is_small() -> None:
    sizes = {path: len(asset.packed) for path, asset in assets.load().files.items()}
    assert sum(sizes.values()) < MOST_BYTES, sizes


@pytest.mark.parametrize("path", [path for path in SERVED if path.endswith((".js", ".css"))])
def test_a_module_has_few_lines(path: str) -> None:
    assert len(SERVED[path].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SERVED)
def test_it_asks_no_other_host(path: str) -> None:
    text = SERVED[path].read_text(encoding="utf-8")
    for name in NAMES:
        text = text.replace(name, "")
    # A comment begins with two slashes, an address of another host within quotes or url().
    assert not re.findall(r"\b(?:https?|wss?|ftp):/?/?[^\s\"'`)]*|[\"'`(]//[^\s\"'`)]+", text)
    assert "@import" not in text
    assert path.endswith(".js") or "url(" not in text.replace("url(data:", "")


@pytest.mark.parametrize("path", [path for path in SERVED if path.endswith(".js")])
def test_a_string_becomes_markup_in_one_place(path: str) -> None:
    text = SERVED[path].read_text(encoding="utf-8")
    found = [match[0] for match in SINKS.finditer(text)]
    assert found == ([".innerHTML"] if path == "js/core/dom.js" else [])
    assert not IN_PLACE.search(text)
    assert "createPolicy" not in text or path == "js/core/dom.js"


class _Inline(HTMLParser):
    """Collects what the policy would refuse, and what a document refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.targets: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in_script = tag == "script"
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag in ("style", "base", "iframe", "object", "embed") else []
        self.targets += [given[name] or "" for name in ("src", "href") if name in given]

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.inline.append(data)


def test_the_document_has_nothing_inline_and_what_it_names_is_there() -> None:
    for path in (path for path in SERVED if path.endswith((".html", ".svg"))):
        document = _Inline()
        document.feed(SERVED[path].read_text(encoding="utf-8"))
        assert not document.inline
        missing = {target.removeprefix("/page/") for target in document.targets} - SERVED.keys()
        assert not missing, path


def test_every_module_that_is_imported_is_there() -> None:
    for path in (path for path in SERVED if path.endswith(".js")):
        text = SERVED[path].read_text(encoding="utf-8")
        for target in re.findall(r"(?:\bfrom|\bimport)\s*\(?\s*\"([^\"]+)\"", text):
            assert target.startswith("."), f"{path} imports {target}"
            found = (SERVED[path].parent / target).resolve().relative_to(FOLDER).as_posix()
            assert found in SERVED, f"{path} imports {target}"


def test_what_is_no_part_of_the_page_is_not_served() -> None:
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    apart = {path for path in files - SERVED.keys() if "__pycache__" not in path}
    assert apart == {"README.md", "__init__.py"}
