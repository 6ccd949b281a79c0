"""The corpus of the demonstration model: what it is trained on and what it is asked.

Three kinds of text live here, and this module reads them all; it needs no torch:

- ``corpus/*.toml``: questions and answers, split by theme. Each entry has one answer, several
  phrasings of its question and, where it explains a thing, the name of that thing as ``topic``;
- ``heldout.toml``: rephrasings that are never trained on, each with the id of the right entry;
- the documentation of the repository, cut into paragraphs.

A question is compared with another after `normalise`, so that case and punctuation never make
two phrasings different.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CORPUS_DIR = HERE / "corpus"
HELDOUT_FILE = HERE / "heldout.toml"

MIN_PHRASINGS = 4
MAX_ANSWER_WORDS = 80


class CorpusError(ValueError):
    """The corpus breaks one of its rules; the message names the file and the entry."""


@dataclass(frozen=True)
class Entry:
    """One answer, and the questions that it answers."""

    id: str
    theme: str
    answer: str
    questions: tuple[str, ...]
    topic: str | None = None


@dataclass(frozen=True)
class HeldOut:
    """A rephrasing that is kept out of training, and the entry that answers it."""

    question: str
    id: str


def normalise(question: str) -> str:
    """Lower case, words only: what is left when case and punctuation do not count.

    >>> normalise("What's a  slot, then?")
    'whats a slot then'
    """
    text = question.lower().replace("'", "").replace("\u2019", "")
    return " ".join(re.findall(r"[a-z0-9_.+-]*[a-z0-9_+]", text))


def load(folder: Path = CORPUS_DIR) -> list[Entry]:
    """Read every theme, in the order of the file names, and check the rules of the corpus."""
    entries: list[Entry] = []
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise CorpusError(f"no corpus in {folder}")
    for file in files:
        for raw in _read(file).get("entry", []):
            entries.append(_entry(file, raw))
    _check_unique(entries)
    return entries


def load_heldout(entries: list[Entry], file: Path = HELDOUT_FILE) -> list[HeldOut]:
    """Read the held-out rephrasings; refuse one that is also a training phrasing."""
    ids = {entry.id for entry in entries}
    trained = {normalise(question) for entry in entries for question in entry.questions}
    held: list[HeldOut] = []
    for raw in _read(file).get("heldout", []):
        item = HeldOut(question=str(raw["question"]), id=str(raw["id"]))
        if item.id not in ids:
            raise CorpusError(f"{file.name}: {item.question!r} names no entry: {item.id!r}")
        if normalise(item.question) in trained:
            raise CorpusError(f"{file.name}: {item.question!r} is trained on")
        held.append(item)
    return held


def split_validation(entries: list[Entry]) -> tuple[list[Entry], list[tuple[str, Entry]]]:
    """Take one phrasing out of each entry, never its first: a set to tune with.

    The held-out questions are for judging the finished model, so tuning needs others.
    """
    left: list[Entry] = []
    taken: list[tuple[str, Entry]] = []
    for entry in entries:
        sha = hashlib.sha256(entry.id.encode()).digest()
        out = 1 + int.from_bytes(sha[:4], "big") % (len(entry.questions) - 1)
        kept = tuple(q for i, q in enumerate(entry.questions) if i != out)
        left.append(replace(entry, questions=kept))
        taken.append((entry.questions[out], entry))
    return left, taken


def digest(entries: list[Entry]) -> str:
    """SHA-256 over ids, answers and questions: it names the corpus that a model was made from."""
    sha = hashlib.sha256()
    for entry in entries:
        for part in (entry.id, entry.answer, *entry.questions):
            sha.update(part.encode() + b"\0")
    return sha.hexdigest()


def documentation(root: Path) -> dict[str, list[str]]:
    """The documentation that exists under `root`, by file, as paragraphs of plain text."""
    files = [root / "README.md", root / "protocol" / "SPEC.md", *sorted(root.glob("docs/**/*.md"))]
    found: dict[str, list[str]] = {}
    for file in files:
        if file.is_file():
            paragraphs = _paragraphs(file.read_text(encoding="utf-8"))
            if paragraphs:
                found[str(file.relative_to(root))] = paragraphs
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorpusError(f"cannot read {file}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CorpusError(f"{file.name}: {error}") from error


def _entry(file: Path, raw: dict[str, Any]) -> Entry:
    unknown = set(raw) - {"id", "topic", "answer", "questions"}
    try:
        entry = Entry(
            id=raw["id"],
            theme=file.stem,
            answer=" ".join(raw["answer"].split()),
            questions=tuple(raw["questions"]),
            topic=raw.get("topic"),
        )
    except KeyError as error:
        raise CorpusError(f"{file.name}: {raw.get('id', 'an entry')} lacks {error}") from error
    if unknown:
        raise CorpusError(f"{file.name}: {entry.id} has unknown keys: {sorted(unknown)}")
    if len(entry.questions) < MIN_PHRASINGS:
        raise CorpusError(f"{file.name}: {entry.id} has fewer than {MIN_PHRASINGS} phrasings")
    if not 0 < len(entry.answer.split()) <= MAX_ANSWER_WORDS:
        raise CorpusError(f"{file.name}: {entry.id} has an answer of the wrong length")
    return entry


def _check_unique(entries: list[Entry]) -> None:
    ids: set[str] = set()
    seen: dict[str, str] = {}
    answers: dict[str, str] = {}
    for entry in entries:
        if entry.id in ids:
            raise CorpusError(f"two entries are called {entry.id!r}")
        ids.add(entry.id)
        if entry.answer in answers:
            raise CorpusError(f"{entry.id} and {answers[entry.answer]} have one answer")
        answers[entry.answer] = entry.id
        for question in entry.questions:
            key = normalise(question)
            if key in seen:
                raise CorpusError(f"{question!r} is asked by {seen[key]} and by {entry.id}")
            seen[key] = entry.id


def _paragraphs(markdown: str, longest: int = 900) -> list[str]:
    """Paragraphs of prose: code blocks, tables and headings say little to so small a model."""
    prose = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    kept: list[str] = []
    for block in re.split(r"\n\s*\n", prose):
        text = " ".join(block.split())
        if len(text) < 40 or text.startswith(("#", "|", "<", "![", "---")):
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
        kept.append(text[:longest])
    return kept
