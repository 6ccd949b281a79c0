#!/usr/bin/env python3
"""Writes a bill of materials of the server: CycloneDX 1.6, JSON.

It is of the lock file, that is of what the container installs, with its hashes. cyclonedx-py makes
it; llcuda-net itself and the licences of docs/licences.md are added, and it is validated again.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.util.terminal import echo

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements/server.txt"
PYTHON = ROOT / ".venv-dist/bin/python"
_VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(f"not valid: {wrong}" if wrong else 0)
"""
EXAMPLES = """\
example:
  tools/sbom.py dist/llcuda_net.cdx.json
"""


def licences() -> dict[str, str]:
    """The expressions of SPDX of docs/licences.md, by distribution."""
    text = (ROOT / "docs/licences.md").read_text("utf-8")
    return dict(re.findall(r"^\| ([\w-]+) \| ([^|]+) \|$", text, re.MULTILINE))


def completed(found: dict[str, Any], version: str, known: dict[str, str]) -> dict[str, Any]:
    """What cyclonedx-py has made of a lock file, with llcuda-net at its root and with licences."""
    root = f"pkg:pypi/llcuda-net@{version}"
    metadata = found.setdefault("metadata", {})
    metadata["component"] = {
        "bom-ref": root,
        "type": "application",
        "name": "llcuda-net",
        "version": version,
        "purl": root,
        "licenses": [{"expression": "MIT", "acknowledgement": "declared"}],
    }
    parts = found.get("components", [])
    for part in parts:
        part.pop("description", None)  # a line of the lock file, hashes and all
        name = re.sub(r"[-_.]+", "-", part["name"]).lower()
        if name in known:
            part["licenses"] = [{"expression": known[name], "acknowledgement": "concluded"}]
    refs = sorted(part["bom-ref"] for part in parts)
    found["dependencies"] = [
        {"ref": root, "dependsOn": refs},
        *({"ref": one} for one in refs),
    ]
    return found


def make() -> dict[str, Any]:
    """The document, validated.

    Raises:
        CommandError: it could not be made, or is not valid.
    """
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sbom.json"
        line = [str(PYTHON), "-m", "cyclonedx_py", "requirements", "--output-reproducible"]
        # No index is named in it: whoever installs has their own.
        line += ["--short-PURLs", "--spec-version", "1.6", "-o", str(file), str(LOCK)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            fail(f"cyclonedx-py failed: {done.stderr.strip()[-300:]}", Exit.REFUSED)
        found = json.loads(file.read_text("utf-8"))
    found = completed(found, settings["metadata"]["version"], licences())
    done = subprocess.run(
        [PYTHON, "-c", _VALIDATE],
        input=json.dumps(found),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        fail(done.stderr.strip()[-300:], Exit.REFUSED)
    return found


def main() -> int:
    """Write the file."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("output", type=Path, help="the file to write")
    return run_command("sbom", lambda: _write(parser.parse_args().output))


def _write(path: Path) -> int:
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    bare = [part["name"] for part in found["components"] if "licenses" not in part]
    note = f"; docs/licences.md has no licence of {', '.join(bare)}" if bare else ""
    echo(f"{path}: {len(found['components'])} components{note}")
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
