"""The site that `make docs` builds: Sphinx, over the pages as they stand in the repository.

The source folder is the repository itself, so that links between pages, and to files, are those
that a reader of the repository follows. Whatever is a warning fails the build: a page outside the
navigation, a link or an anchor that leads nowhere, a picture that is missing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from llcuda_net.util.version import package_version
from tools.documented.site import NAVIGATION, external_links, link_folders, slug

project = "llcuda"
author = "the llcuda contributors"
copyright = "the llcuda contributors"
version = release = package_version()
root_doc = "README"
extensions = ["myst_parser", "sphinx_copybutton"]
include_patterns = [f"{page}.md" for pages in NAVIGATION.values() for page, _ in pages]
include_patterns.append("README.md")

myst_heading_anchors = 6
myst_heading_slug_func = slug
# Straight quotes and dashes as they were written: much of it is code.
smartquotes = False
# A list of contents may skip a level; a function among the settings cannot be cached; and SQL with
# parameters is not what the lexer expects.
suppress_warnings = ["myst.header", "config.cache", "misc.highlighting_failure"]
highlight_language = "none"

html_theme = "furo"
html_title = "llcuda"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["style"]
html_css_files = ["site.css"]
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


def with_navigation(_app: Any, page: str, source: list[str]) -> None:
    """The front page has the tables of contents, which only the site shows."""
    source[0] = link_folders(ROOT, f"{page}.md", source[0])
    if page != root_doc:
        return
    parts = [source[0]]
    for caption, pages in NAVIGATION.items():
        names = "\n".join(f"{title} <{name}>" for name, title in pages)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n")
    source[0] = "\n".join(parts)


def with_index(app: Any, error: Exception | None) -> None:
    """The front page has the name that web servers look for, too."""
    if error is None:
        site = Path(app.outdir)
        shutil.copy(site / f"{root_doc}.html", site / "index.html")
        lines = external_links(ROOT)
        (site / "external-links.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("source-read", with_navigation)
    app.connect("build-finished", with_index)
