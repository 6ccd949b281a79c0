#!/usr/bin/env python3
"""Ask a real server all that its /openapi.json allows, and much that it does not, by schemathesis.

A synthetic upstream answers behind it. Looked for are statuses, types, bodies and headers that are
not documented, methods that are not refused, malformed input that is taken, and faults.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.overhead.processes import llcuda_server, synthetic_upstream

EXAMPLE = """\
example:
  make test-openapi
  python tools/check_openapi.py --examples 50 --seed 7

exit codes: 0 nothing was found, 1 something was, 2 usage
"""
INSTALL = (
    "schemathesis is not installed: python -m venv .venv-openapi && .venv-openapi/bin/python -m "
    "pip install 'schemathesis>=4.32,<5' (it needs another jsonschema-rs than the server)"
)
#: 504 is what a request is answered with that did not end in the time that it gave itself.
SETTINGS = """\
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
# A body may be right by its schema and wrong in a grammar, the name of a tool, or dimensions.
positive_data_acceptance.enabled = false
# Without a token file every key is taken.
ignored_auth.enabled = false
"""
#: An answer for operations on one; one of its own for the operation that deletes it.
KNOWN = """
[[operations]]
include-operation-id = {operations}
parameters = {{ "path.id" = "{id}" }}
"""
READS = ["get_v1_generations_id", "get_v1_generations_id_events", "post_v1_generations_id_cancel"]
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


def parser() -> Parser:
    """The command line."""
    out = Parser(description=(__doc__ or "").splitlines()[0], epilog=EXAMPLE)
    out.add_argument("--examples", type=int, default=4, help="of each operation, at random")
    out.add_argument("--seed", type=int, default=1)
    beside = str(Path(sys.executable).with_name("llcuda-server"))
    out.add_argument("--server", default=beside, metavar="COMMAND", help="default: %(default)s")
    return out


def program() -> str | None:
    """Schemathesis: that of .venv-openapi, $SCHEMATHESIS, or the one in PATH."""
    own = ROOT / ".venv-openapi" / "bin" / "schemathesis"
    return os.environ.get("SCHEMATHESIS") or (
        str(own) if own.exists() else shutil.which("schemathesis")
    )


def generation(base: str) -> str:
    """The id of an answer that is there."""
    body = json.dumps(CHAT).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(answer.headers["x-llcuda-generation"])


def main() -> int:
    """Start all, let schemathesis ask, and tell what it found."""
    args = parser().parse_args()
    path = program()
    if path is None:
        echo(INSTALL, file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="llcuda-openapi-") as folder,
        synthetic_upstream("--slots", "8", "--ctx", "4096") as upstream,
        llcuda_server(args.server, upstream.address, "process") as server,
    ):
        base = "http://{}:{}".format(*server.address)
        settings = SETTINGS
        for operations in (READS, ["delete_v1_generations_id"]):
            settings += KNOWN.format(operations=json.dumps(operations), id=generation(base))
        Path(folder, "schemathesis.toml").write_text(settings, "utf-8")
        url = f"{base}/openapi.json"
        command = [path, "run", url, "--phases", "examples,coverage,fuzzing,stateful"]
        command += ["--max-examples", str(args.examples), "--seed", str(args.seed)]
        command += ["--continue-on-failure", "--request-timeout", "120", "--no-color"]
        return min(1, subprocess.run(command, cwd=folder, check=False).returncode)


if __name__ == "__main__":
    sys.exit(main())
