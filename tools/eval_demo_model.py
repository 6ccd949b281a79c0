#!/usr/bin/env python3
"""Ask the demonstration model its own questions, in the runtime that users get.

llcuda's built-in engine is llama.cpp's server, so that is what answers here too, at temperature 0
and through the chat template in the file. An answer counts only when it is the right entry's
answer word for word and the model ended it by itself. Two figures are printed: over every
phrasing in the corpus, and over the held-out rephrasings that were never trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.demo_model import corpus

CORPUS_GOAL = 0.90
HELDOUT_GOAL = 0.60
TOKENS_A_SLOT = 1024

EXAMPLE = """\
example:
  python tools/eval_demo_model.py
  python tools/eval_demo_model.py --model path.gguf --verbose

The exit code is 1 when fewer than 90% of the corpus or 60% of the held-out questions are
answered right.
"""


@dataclass(frozen=True)
class Asked:
    """One question, the entry that should answer it, and what came back."""

    question: str
    id: str
    expected: str
    answer: str
    ended: bool

    @property
    def right(self) -> bool:
        """Word for word, and ended by the model."""
        return self.ended and self.answer == self.expected


class Engine:
    """llama.cpp's server on a free loopback port, inside this process."""

    def __init__(self, model: Path, slots: int, threads: int) -> None:
        import xllamacpp  # late: --help should not load native code

        params: Any = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_parallel = slots
        params.n_ctx = slots * TOKENS_A_SLOT
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.verbosity = 0
        params.cpuparams.n_threads = threads
        self._server: Any = xllamacpp.Server(params)
        self._address = str(self._server.listening_address)

    def ask(self, question: str) -> tuple[str, bool]:
        """The answer, and whether the model ended it rather than the limit."""
        body = {
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 200,
        }
        request = urllib.request.Request(
            f"{self._address}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            choice = json.load(response)["choices"][0]
        return choice["message"]["content"], choice["finish_reason"] == "stop"


def ask_all(engine: Engine, wanted: Sequence[tuple[str, corpus.Entry]], slots: int) -> list[Asked]:
    """Ask every question, as many at once as there are slots; the answers keep their order."""
    done = 0
    terminal = is_clever(sys.stderr)

    def one(item: tuple[str, corpus.Entry]) -> Asked:
        nonlocal done
        question, entry = item
        answer, ended = engine.ask(question)
        done += 1
        if terminal and (done % 20 == 0 or done == len(wanted)):
            status_line(f"{done}/{len(wanted)}", sys.stderr)
        return Asked(question, entry.id, entry.answer, answer, ended)

    with ThreadPoolExecutor(slots) as pool:
        asked = list(pool.map(one, wanted))
    if terminal:
        status_line("", sys.stderr)
    return asked


def share(asked: Sequence[Asked]) -> float:
    """The share that was answered right."""
    return sum(item.right for item in asked) / len(asked) if asked else 0.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description="Measure the demonstration model on its corpus and on held-out questions.",
        epilog=EXAMPLE,
    )
    out.add_argument(
        "--model",
        type=Path,
        default=ROOT / "llcuda_net" / "data" / "demo.gguf",
        help="default: %(default)s",
    )
    out.add_argument("--slots", type=int, default=8, help="questions at once (default: 8)")
    # More threads than one wait for each other at every layer of so small a model.
    out.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    out.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    out.add_argument("--verbose", action="store_true", help="list every wrong answer")
    out.add_argument(
        "--validation",
        action="store_true",
        help="ask only what training left out, for a model trained with --validate",
    )
    return out


def run(options: argparse.Namespace) -> int:
    """Ask, count and print; returns the exit code."""
    if not options.model.is_file():
        raise FileNotFoundError(f"no such model: {options.model}")
    entries = corpus.load()
    by_id = {entry.id: entry for entry in entries}
    held = corpus.load_heldout(entries)
    began = time.monotonic()
    engine = Engine(options.model, options.slots, options.threads)
    if options.validation:
        taken = ask_all(engine, corpus.split_validation(entries)[1], options.slots)
        _list_wrong(taken, options.verbose)
        echo(f"validation: {_figure(taken)}")
        return 0

    in_corpus = ask_all(engine, [(q, e) for e in entries for q in e.questions], options.slots)
    first = {entry.questions[0] for entry in entries}
    main_phrasing = [item for item in in_corpus if item.question in first]
    out_of_corpus = ask_all(engine, [(h.question, by_id[h.id]) for h in held], options.slots)
    seconds = time.monotonic() - began
    passed = share(in_corpus) >= CORPUS_GOAL and share(out_of_corpus) >= HELDOUT_GOAL
    if options.json:
        wrong = [asdict(item) for item in (*in_corpus, *out_of_corpus) if not item.right]
        report = {
            "corpus": {"asked": len(in_corpus), "right": share(in_corpus)},
            "first_phrasings": {"asked": len(main_phrasing), "right": share(main_phrasing)},
            "heldout": {"asked": len(out_of_corpus), "right": share(out_of_corpus)},
            "seconds": round(seconds, 1),
            "passed": passed,
            "wrong": wrong,
        }
        echo(json.dumps(report, indent=2))
    else:
        _list_wrong([*in_corpus, *out_of_corpus], options.verbose)
        echo(f"corpus, word for word:    {_figure(in_corpus)}")
        echo(f"first phrasing of each:   {_figure(main_phrasing)}")
        echo(f"held-out rephrasings:     {_figure(out_of_corpus)}")
        echo(f"{seconds:.0f} s; goals 90% and 60%: {'met' if passed else 'MISSED'}")
    return 0 if passed else 1


def _figure(asked: Sequence[Asked]) -> str:
    return f"{share(asked):6.1%}  ({sum(item.right for item in asked)} of {len(asked)})"


def _list_wrong(asked: Sequence[Asked], verbose: bool) -> None:
    for item in asked:
        if verbose and not item.right:
            echo(f"- {item.question}\n    wanted {item.id}\n    got    {item.answer}")


def main() -> int:
    """Run; report faults that a user can mend in one line."""
    options = parser().parse_args()
    try:
        return run(options)
    except KeyboardInterrupt:
        return 130
    except (corpus.CorpusError, OSError, ImportError, RuntimeError) as error:
        echo(f"eval_demo_model: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
