#!/usr/bin/env python3
"""Asks for known vulnerabilities of what the container installs: of requirements/server.txt.

pip-audit asks PyPI, and where that knows nothing, OSV. Exit codes: 0 none is known, 1 some are, or
not every distribution could be looked up, 3 no database could be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from llcuda_net.cli.common import Exit, Parser
from llcuda_net.util.terminal import echo

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements/server.txt"
PROGRAM = ROOT / ".venv-dist/bin/pip-audit"
SERVICES = ("pypi", "osv")
#: Seconds for all questions to one database.
PATIENCE = 600
EXAMPLES = """\
example:
  make audit
"""


def ask(service: str) -> list[dict[str, Any]] | str:
    """What a database says of each distribution of the lock file, or why it could not be asked."""
    line = [str(PROGRAM), "--vulnerability-service", service, "--format", "json"]
    line += ["--progress-spinner", "off", "--disable-pip", "--require-hashes"]
    try:
        done = subprocess.run(
            [*line, "--requirement", str(LOCK)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return said[-1] if len(said[-1]) < 120 else f"{said[-1][:119]}…"
    if found and all("skip_reason" in one for one in found):
        return f"it has none of them ({found[0]['skip_reason']})"
    return found


def audit(ask: Callable[[str], list[dict[str, Any]] | str] = ask) -> int:
    """Ask one database after the other until one answers, and print what it says."""
    refusals = []
    for service in SERVICES:
        found = ask(service)
        if not isinstance(found, str):
            return _told(found, service)
        refusals.append(f"{service}: {found}")
    echo(f"audit: no database could be asked: {'; '.join(refusals)}", file=sys.stderr)
    return Exit.CONNECT


def _told(found: list[dict[str, Any]], service: str) -> int:
    wrong = 0
    for one in found:
        for each in one.get("vulns", ()):
            wrong += 1
            mended = ", ".join(each.get("fix_versions") or ()) or "no version yet"
            echo(f"{one['name']} {one['version']}: {each['id']}, mended in {mended}")
    skipped = [one["name"] for one in found if "skip_reason" in one]
    if skipped:
        echo(f"not looked up: {', '.join(skipped)}")
    count = len(found) - len(skipped)
    echo(f"{wrong or 'no'} known vulnerabilities in {count} distributions ({service})")
    return Exit.REFUSED if wrong or skipped else Exit.OK


def main() -> int:
    """Run the command."""
    Parser(description=__doc__, epilog=EXAMPLES).parse_args()
    return audit()


if __name__ == "__main__":
    sys.exit(main())
