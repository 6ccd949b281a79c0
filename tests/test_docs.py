"""The documentation names files, links, packages and states that exist."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from llcuda_net.generation.state import TRANSITIONS, State
from tests.test_layout import ORDER

ROOT = Path(__file__).resolve().parent.parent
#: The changelog is left out: it names files that are gone.
DOCS = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"),
    *(ROOT / "protocol/SPEC.md", ROOT / "protocol/vectors/README.md"),
    *(ROOT / "kernels/README.md", ROOT / "deploy/README.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: Where a path in the documentation may begin.
STARTS = (
    *("", "llcuda_net/", "protocol/llcuda_protocol/", "kernels/llcuda_kernels/"),
    *("tests/", "tests/llcuda_net/"),
)
SOURCES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("llcuda_net", "protocol", "kernels", "tests", "tools", "examples")
    for path in (ROOT / folder).rglob("*.py")
]


def outside_code(text: str) -> str:
    """Markdown without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What may follow `#` in a link to this page."""
    headings = re.findall(
        r"^#+ (.+)$", outside_code(path.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_python_files_that_are_named_exist() -> None:
    """Below one of STARTS, or, where that finds none, as the end of exactly one path."""
    wrong = []
    for page in DOCS:
        text = page.read_text(encoding="utf-8")
        for name in sorted(set(re.findall(r"(?<![\w/.-])[\w.][\w./-]*\.py\b", text))):
            ends = [path for path in SOURCES if path.endswith(f"/{name}")]
            if not any(start + name in SOURCES for start in STARTS) and len(ends) != 1:
                found = ", ".join(ends) or "no file"
                wrong.append(f"{page.relative_to(ROOT)}: {name} is {found}")
    assert not wrong, "\n".join(wrong)


def test_relative_links_lead_somewhere() -> None:
    wrong = []
    for page in [*DOCS, ROOT / "CHANGELOG.md"]:
        text = outside_code(page.read_text(encoding="utf-8"))
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert not wrong, "\n".join(wrong)


def block_after(text: str, words: str) -> str:
    """The first block of code after these words."""
    found = re.search(r"```\n(.*?)\n```", text[text.index(words) :], re.DOTALL)
    assert found
    return found[1]


def test_the_states_of_a_generation_are_those_of_the_table() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    following = {state: [s for s in State if s in TRANSITIONS[state]] for state in State}
    lines = [f"{state} --> {', '.join(names)}" for state, names in following.items() if names]
    assert block_after(text, "The states of a generation").splitlines() == lines


def test_the_packages_are_those_of_the_order_of_imports() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = [set(row) for row in ORDER]
    names = set().union(*rows)
    lines = block_after(text, "imports form no circle").splitlines()
    assert [set(line[:31].split()) for line in reversed(lines)] == rows
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in names - {"data"}:
        assert f"[`{name}/`](llcuda_net/{name})" in table or f"`{name}.py`" in table, name


def test_every_install_line_can_work() -> None:
    """Its extras exist, and its page says where the package itself comes from: no index has it."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = set(settings["options.extras_require"])
    wrong = []
    for page in [*DOCS, *(ROOT / "llcuda_net").rglob("*.py")]:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"pip install [^\n]*?llcuda.net(?:\[([\w,]*)\])?", text)
        for names in lines:
            if missing := set(names.split(",")) - {""} - extras:
                wrong.append(f"{page.relative_to(ROOT)}: no extra {missing}")
        if (
            lines
            and page.suffix == ".md"
            and "#installing" not in text + "#installing" * ("\n## Installing\n" in text)
        ):
            wrong.append(f"{page.relative_to(ROOT)}: does not say where llcuda-net comes from")
    assert not wrong, "\n".join(wrong)


def test_targets_of_make_that_are_named_exist() -> None:
    """In blocks of code and in code spans; words of prose are no commands."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    wrong = []
    for page in DOCS:
        text = page.read_text(encoding="utf-8")
        code = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        code += "\n" + "\n".join(re.findall(r"`(make [^`]*)`", text))
        for words in re.findall(r"^make ((?:[a-z-]+ ?)+)", code, re.MULTILINE):
            wrong += [f"{page.name}: make {name}" for name in words.split() if name not in targets]
    assert not wrong, "\n".join(wrong)
