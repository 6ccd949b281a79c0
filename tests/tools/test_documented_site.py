"""The site's navigation, and how links become those of a site."""

from __future__ import annotations

from pathlib import Path

from tests.test_docs import DOCS, ROOT, anchors
from tools.documented.site import NAVIGATION, external_links, link_folders, slug


def test_each_page_is_in_the_navigation_once() -> None:
    names = [f"{name}.md" for pages in NAVIGATION.values() for name, _ in pages]
    assert len(names) == len(set(names))
    pages = {page.relative_to(ROOT).as_posix() for page in DOCS} - {"README.md"}
    assert pages <= set(names), pages - set(names)
    assert all((ROOT / name).exists() for name in names)


def test_titles_are_short_enough_for_a_column() -> None:
    titles = [title for pages in NAVIGATION.values() for _, title in pages]
    assert [title for title in titles if len(title) > 32] == []


def test_anchors_are_those_that_links_in_the_repository_name() -> None:
    assert slug("Where do I change …?") == "where-do-i-change-"
    page = ROOT / "docs/architecture.md"
    assert slug("Where do I change …?") in anchors(page)


def test_links_to_folders(tmp_path: Path) -> None:
    for name in ("docs/benchmarks", "deploy", "llcuda_net"):
        (tmp_path / name).mkdir(parents=True)
    text = (
        "[all](benchmarks), [code](../llcuda_net), [how](../deploy/), [a](a.md), "
        "![p](benchmarks/p.png), [web](https://example.com/docs)"
    )
    assert link_folders(tmp_path, "docs/start.md", text) == (
        "[all](benchmarks/README.md), code, [how](../deploy/README.md), [a](a.md), "
        "![p](benchmarks/p.png), [web](https://example.com/docs)"
    )


def test_links_to_elsewhere_are_listed() -> None:
    found = external_links(ROOT)
    assert len(found) > 10
    assert all(link.startswith(("http://", "https://")) for link in found)
    assert found == sorted(set(found))
