#!/usr/bin/env python3
"""Fuzz the receiving side of the protocol core, guided by coverage (atheris, libFuzzer).

A harness is a role that receives (server, client) and a state in which the input arrives: `new`
(before the handshake; a client has sent its hello), `open` (after it), `streams` (with streams in
every state). Each runs in a process of its own with a cap on memory. What must hold is in
protocol_harness.py. Each find is printed in hex, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo

ROOT = Path(__file__).resolve().parent.parent
PATHS = [str(ROOT), str(ROOT / "protocol")]
sys.path[:0] = PATHS  # so that the script runs from anywhere, without being installed

VECTORS = ROOT / "protocol" / "vectors"
HARNESSES = [(role, start) for role in ("server", "client") for start in ("new", "open", "streams")]
MAX_INPUT = 20_000
INPUT_SECONDS = 20  # one input that takes longer is a find
EXAMPLE = """\
examples:
  python tools/fuzz_protocol.py --minutes 5        # all six harnesses, 5 minutes in all
  python tools/fuzz_protocol.py --role server --start new --runs 1000000
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description="Fuzz the receiving side of the protocol core. Exits with 1 after a find.",
        epilog=EXAMPLE,
    )
    out.add_argument("--role", choices=("server", "client"), help="who receives (default: both)")
    out.add_argument(
        "--start", choices=("new", "open", "streams"), help="where it begins (default: all)"
    )
    out.add_argument("--minutes", type=float, default=5.0, help="in all (default: %(default)s)")
    out.add_argument("--runs", type=int, help="inputs for each harness, in place of minutes")
    out.add_argument("--memory", type=int, default=512, help="cap in MiB (default: %(default)s)")
    out.add_argument("--corpus", type=Path, help="folder that keeps the corpora between runs")
    out.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return out


def state(role: str, start: str) -> str:
    """Where a harness begins, by protocol_starts' names: a client says hello before anything."""
    return "greeted" if (role, start) == ("client", "new") else start


def inside(role: str, start: str, flags: list[str]) -> None:
    """Run one harness in this process. It does not return."""
    import atheris

    with atheris.instrument_imports(include=["llcuda_protocol"]):
        from llcuda_protocol import Role
        from tools.protocol_harness import make_check
    atheris.Setup([sys.argv[0], *flags], make_check(Role(role), state(role, start)))
    atheris.Fuzz()


def seed(folder: Path, role: str, start: str) -> None:
    """Fill a corpus with the vectors for this role: whole, and as the body of a frame."""
    from llcuda_protocol.kinds import HEADER, PREFACE

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(VECTORS.glob("*.json")):
        for vector in json.loads(path.read_text()).get("vectors", []):  # not states, profiles
            data = bytes.fromhex(vector["hex"])
            if vector["role"] != role or len(data) > MAX_INPUT:
                continue
            early = vector["state"] in ("new", "greeted")
            bodies = [b"\0" + data] if early == (start == "new") else []
            bodies.append(b"\x80" + data.removeprefix(PREFACE)[HEADER:])
            for i, body in enumerate(bodies):
                (folder / f"{vector['name']}-{i}").write_bytes(body)


def words(path: Path) -> None:
    """Write the dictionary: the keys of the frames' maps and the frames' first bytes."""
    from llcuda_protocol import events
    from llcuda_protocol.kinds import PREFACE, Kind

    found = {PREFACE, *(bytes([0x93, kind]) for kind in Kind)}
    for name in events.__all__:
        keys = getattr(getattr(events, name), "FIELDS", {})
        found |= {bytes([0xA0 | len(key)]) + key.encode() for key in keys}
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in sorted(found))
    path.write_text("\n".join(lines) + "\n")


def fuzz(role: str, start: str, limits: list[str], corpus: Path, memory: int) -> tuple[int, bool]:
    """Run one harness in a process of its own; how many inputs it ran and whether it found any."""
    folder = corpus / f"{role}-{start}"
    seed(folder, role, start)
    words(corpus / "words")
    finds = corpus / f"finds-{role}-{start}"
    finds.mkdir(exist_ok=True)
    flags = [
        *limits,
        f"-max_len={MAX_INPUT}",
        f"-rss_limit_mb={memory}",
        f"-timeout={INPUT_SECONDS}",
        f"-artifact_prefix={finds}/",
        f"-dict={corpus / 'words'}",
        "-use_value_profile=1",
        "-print_final_stats=1",
    ]
    command = [sys.executable, __file__, "--inside", role, start, *flags, str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=sys.stderr, text=True) as child:
        assert child.stderr is not None
        ran = 0
        for line in child.stderr:
            if not re.match(r"#\d+\s+(NEW|REDUCE)", line):
                echo(line, end="", file=sys.stderr)
            if number := re.search(r"number_of_executed_units:\s*(\d+)", line):
                ran = int(number[1])
            elif number := re.match(r"#(\d+)\s", line):
                ran = max(ran, int(number[1]))
    for find in sorted(finds.iterdir()):
        echo(f"find in {role}/{start}, {find.name}: {find.read_bytes().hex()}", flush=True)
    return ran, child.returncode != 0


def main() -> int:
    """Run the chosen harnesses; 1 if any found something."""
    args = parser().parse_args()
    if args.inside:
        role, start, *flags = args.inside
        inside(role, start, flags)
    if importlib.util.find_spec("atheris") is None:
        echo("atheris is not installed: pip install -e '.[fuzz]', or make fuzz", file=sys.stderr)
        return 2
    chosen = [
        (role, start)
        for role, start in HARNESSES
        if args.role in (None, role) and args.start in (None, start)
    ]
    seconds = max(1, round(args.minutes * 60 / len(chosen)))
    limits = [f"-runs={args.runs}"] if args.runs else [f"-max_total_time={seconds}"]
    total, failed = 0, False
    with tempfile.TemporaryDirectory() as scratch:
        corpus = args.corpus or Path(scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        for role, start in chosen:
            ran, found = fuzz(role, start, limits, corpus, args.memory)
            total += ran
            failed = failed or found
            echo(f"{role}/{start}: {ran:,} inputs, {'FOUND' if found else 'nothing'}", flush=True)
    echo(f"{total:,} inputs in all", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
