#!/usr/bin/env python3
"""Search by meaning, judged: is the right stored answer among the first three hits?

Each question of the demonstration model's corpus is asked once, in its first phrasing, of a real
llcuda-server with that model, which keeps and analyses the answers. Then the held-out rephrasings,
which the model was never trained on, are searched for over the protocol. One counts as found when
the result of its own entry is among the first three hits.

With --ways other ways of making a vector of a result are compared as well, all from the embeddings
that the server gives: on the held-out questions, and on one phrasing an entry that the model was
trained on, to choose by without looking at those.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere, without being installed

import numpy as np

from llcuda_net import sync
from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.demo_model import corpus

GOAL, AMONG = 0.60, 3
#: Seconds without progress after which the analysis counts as stuck.
_STUCK = 120.0

EXAMPLE = """\
example:
  python tools/eval_semantic.py --ways --json semantic.json

The exit code is 1 when fewer than 60% of the held-out questions find their answer.
"""

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Score:
    """Of some questions, the shares whose answer was among the first 1, 3 and 10 hits."""

    questions: int
    at_1: float
    at_3: float
    at_10: float

    @classmethod
    def of(cls, places: Sequence[int]) -> Score:
        """From each answer's place among the hits, counted from 0."""
        found = [sum(place < k for place in places) / max(1, len(places)) for k in (1, AMONG, 10)]
        return cls(len(places), *found)


@contextlib.contextmanager
def server(folder: str, *arguments: str) -> Iterator[str]:
    """llcuda-server on a free port; gives its address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLCUDA_")}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "llcuda_net.cli.server", "--port", "0"),
            *("--data-dir", folder, "--log-level", "warning", *arguments),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=kept,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError("llcuda-server did not start")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def fill(client: sync.Client, entries: Sequence[corpus.Entry]) -> tuple[dict[str, str], list[str]]:
    """Ask the first phrasing of each entry: the entry of each result, and the answers."""
    owner: dict[str, str] = {}
    answers = []
    for entry in entries:
        with client.generate(entry.questions[0], temperature=0, n_predict=200) as stream:
            text = "".join(stream)
        assert stream.id is not None
        owner[stream.id] = entry.id
        answers.append(text)
    return owner, answers


def analysed(client: sync.Client) -> float:
    """Wait for the analysis; the seconds that it took."""
    began = moved = time.monotonic()
    left = -1
    while backlog := client.status()["analysis"]["backlog"]:
        if backlog != left:
            left, moved = backlog, time.monotonic()
        if time.monotonic() - moved > _STUCK:
            raise RuntimeError(f"the analysis is stuck at a backlog of {backlog}")
        time.sleep(0.02)
    return time.monotonic() - began


def searched(client: sync.Client, asked: Sequence[tuple[str, str]], owner: dict[str, str]) -> Score:
    """Search for each question; where the result of its entry is."""
    places = []
    for question, id_ in asked:
        found = [owner[hit.id] for hit in client.search(question, 10)]
        places.append(found.index(id_) if id_ in found else len(owner))
    return Score.of(places)


# -- other ways --------------------------------------------------------------------------------


def unit(x: Matrix) -> Matrix:
    """Rows of length 1."""
    out: Matrix = x / np.linalg.norm(x, axis=1, keepdims=True)
    return out


def without_common(x: Matrix, count: int) -> Callable[[Matrix], Matrix]:
    """Takes away the mean of x and its `count` strongest directions (Mu & Viswanath 2018)."""
    mean = x.mean(axis=0)
    strongest = np.linalg.svd(x - mean, full_matrices=False)[2][:count]

    def apply(y: Matrix) -> Matrix:
        out: Matrix = (y - mean) - (y - mean) @ strongest.T @ strongest
        return out

    return apply


def ways(question: Matrix, answer: Matrix, both: Matrix) -> dict[str, Callable[[Matrix], Matrix]]:
    """Each gives, for the embeddings of queries, their scores with every result."""

    def cosine(stored: Matrix) -> Callable[[Matrix], Matrix]:
        return lambda query: unit(query) @ unit(stored).T

    def centred(stored: Matrix, count: int) -> Callable[[Matrix], Matrix]:
        away = without_common(stored, count)
        return lambda query: unit(away(query)) @ unit(away(stored)).T

    def better(one: Any, two: Any) -> Callable[[Matrix], Matrix]:
        return lambda query: np.maximum(one(query), two(query))

    mean = unit(unit(question) + unit(answer))
    return {
        "the question alone": cosine(question),
        "the answer alone": cosine(answer),
        "question and answer as one text": cosine(both),
        "the better of question and answer (two vectors)": better(cosine(question), cosine(answer)),
        "the mean of the two unit vectors (what llcuda does)": cosine(mean),
        "as one text, the mean taken away": centred(both, 0),
        "as one text, the mean and 1 direction taken away": centred(both, 1),
        "as one text, the mean and 3 directions taken away": centred(both, 3),
        "mean of the two, the mean taken away": centred(mean, 0),
        "mean of the two, the mean and 1 direction taken away": centred(mean, 1),
    }


def compare(
    client: sync.Client,
    entries: Sequence[corpus.Entry],
    answers: Sequence[str],
    asked: Mapping[str, Sequence[tuple[str, str]]],
) -> dict[str, dict[str, Score]]:
    """Each way on each set of questions."""

    def embedded(texts: Sequence[str]) -> Matrix:
        return np.array(client.embed(texts))

    questions = [entry.questions[0] for entry in entries]
    both = [f"{question}\n{answer}" for question, answer in zip(questions, answers, strict=True)]
    queries = {name: embedded([q for q, _ in found]) for name, found in asked.items()}
    place = {entry.id: number for number, entry in enumerate(entries)}
    out: dict[str, dict[str, Score]] = {}
    for way, score in ways(embedded(questions), embedded(answers), embedded(both)).items():
        out[way] = {}
        for name, found in asked.items():
            scores = score(queries[name])
            right = np.array([place[id_] for _, id_ in found])
            own = scores[np.arange(len(right)), right]
            out[way][name] = Score.of([int(n) for n in (scores > own[:, None]).sum(axis=1)])
    return out


# -- the command -------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description="Measure search by meaning on the demonstration model's held-out questions.",
        epilog=EXAMPLE,
    )
    out.add_argument("--ways", action="store_true", help="compare other ways, too")
    out.add_argument("--entries", type=int, help="only the first N entries of the corpus")
    out.add_argument("--json", metavar="FILE", help="write the figures there as well")
    return out


def run(options: argparse.Namespace) -> int:
    """Ask, wait, search and print; returns the exit code."""
    entries = corpus.load()[: options.entries]
    ids = {entry.id for entry in entries}
    held = [(one.question, one.id) for one in corpus.load_heldout(corpus.load()) if one.id in ids]
    trained = [(question, entry.id) for question, entry in corpus.split_validation(entries)[1]]
    asked = {"held out": held, "trained on": trained}
    report: dict[str, Any] = {"results": len(entries)}
    with (
        tempfile.TemporaryDirectory(prefix="llcuda-eval-") as folder,
        server(folder) as address,
        sync.connect(address) as client,
    ):
        owner, answers = fill(client, entries)
        report["seconds_of_analysis"] = round(analysed(client), 2)
        found = {name: searched(client, questions, owner) for name, questions in asked.items()}
        echo(f"{len(entries)} results; analysed {report['seconds_of_analysis']} s after the last")
        for name, score in found.items():
            echo(f"{name:<10}  {_figures(score)}  through llcuda-server, {score.questions} asked")
        report["searched"] = {name: vars(score) for name, score in found.items()}
        if options.ways:
            compared = compare(client, entries, answers, asked)
            echo("\namong the first 1, 3, 10: held out | trained on")
            for way, scores in compared.items():
                echo(f"{_figures(scores['held out'])} | {_figures(scores['trained on'])}  {way}")
            report["ways"] = {
                way: {name: vars(score) for name, score in scores.items()}
                for way, scores in compared.items()
            }
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    passed = found["held out"].at_3 >= GOAL
    echo(f"\ngoal: {GOAL:.0%} of the held-out among the first {AMONG}: {_met(passed)}")
    return 0 if passed else 1


def _met(passed: bool) -> str:
    return "met" if passed else "MISSED"


def _figures(score: Score) -> str:
    return f"{score.at_1:6.1%} {score.at_3:6.1%} {score.at_10:6.1%}"


def main() -> int:
    """Run; report faults that a user can mend in one line."""
    try:
        return run(parser().parse_args())
    except KeyboardInterrupt:
        return 130
    except (corpus.CorpusError, OSError, RuntimeError) as error:
        echo(f"eval_semantic: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
