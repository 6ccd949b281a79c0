#!/usr/bin/env python3
"""Back up a server under load at random moments, kill it, and go on from the copy."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.cli.units import counted
from llcuda_net.util.terminal import echo
from tools import synthetic_upstream
from tools.backup.rounds import Plan, Round, run
from tools.campaign import command

EXAMPLE = """\
example:
  python tools/backup_campaign.py --rounds 50
  python tools/backup_campaign.py --rounds 5 --break       # must end with exit code 1

Real processes. Each round: clients ask a server all the time; `llcuda store backup` at a random
moment; kill -9; `llcuda store restore` elsewhere, and a server on that. Checked: each result that
was acknowledged before the backup began is there, each generation that was under way then comes to
the right end, nothing is there twice, and nothing that nobody asked.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--rounds", type=command.count, default=5, help="(default %(default)s)")
    parser.add_argument("--seed", type=command.count, default=1, help="(default %(default)s)")
    parser.add_argument(
        "--break", dest="broken", action="store_true", help="a wrong backup, to be found out"
    )
    arguments = parser.parse_args(argv)
    rng = random.Random(arguments.seed)
    results = running = 0
    with synthetic_upstream.running("--rate", "40", "--slots", "8") as upstream:
        plan = Plan(upstream, broken=arguments.broken)
        for number in range(1, arguments.rounds + 1):

            def say(text: str, number: int = number) -> None:
                echo(f"round {number} of {arguments.rounds}: {text}")

            with tempfile.TemporaryDirectory(prefix="llcuda-backup-") as folder:
                found: Round = trio.run(run, plan, Path(folder), rng, say)
            results += len(found.acknowledged)
            running += found.running
            if found.violations:
                for text in found.violations[:20]:
                    echo(f"violation: {text}")
                return 1
    echo(
        f"{counted(arguments.rounds, 'backup')}: {counted(results, 'result')} before them, "
        f"{counted(running, 'generation')} under way, violations none"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
