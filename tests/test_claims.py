"""Every claim of README.md is in docs/claims.md, with tests and benchmarks that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "---" not in line
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    if cells[0] != "claim"
}


def claims() -> list[str]:
    """What stands in bold: ways to start, and what it does."""
    ways = re.findall(r"^\*\*([^*]+)\*\*", README, re.MULTILINE)
    said = re.findall(r"^- \*\*([^*]+)\*\*", README, re.MULTILINE)
    return [claim.rstrip(".") for claim in ways + said]


def test_each_claim_of_the_readme_has_a_row() -> None:
    found = claims()
    assert len(found) >= 14
    assert sorted(found) == sorted(ROWS)


def test_each_claim_has_a_test_that_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    wrong = []
    for claim, (tests, benchmarks) in ROWS.items():
        names = re.findall(r"`(tests/[^`]+)`", tests)
        wrong += [f"{claim}: {name}" for name in names if not (ROOT / name).exists()]
        made = re.findall(r"`make ([^`]+)`", tests)
        wrong += [f"{claim}: make {name}" for name in made if name not in targets]
        links = re.findall(r"\]\((benchmarks/[^)]+)\)", benchmarks)
        wrong += [f"{claim}: {link}" for link in links if not (ROOT / "docs" / link).exists()]
        if not names and not made:
            wrong.append(f"{claim}: no test")
    assert not wrong, "\n".join(wrong)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 150
