"""The demonstration model's corpus keeps its rules, and so does the file that is shipped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gguf
import pytest

from tools.demo_model import augment, corpus

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "llcuda_net" / "data" / "demo.gguf"
LARGEST_MODEL = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def entries() -> list[corpus.Entry]:
    return corpus.load()


@pytest.fixture(scope="module")
def held(entries: list[corpus.Entry]) -> list[corpus.HeldOut]:
    return corpus.load_heldout(entries)


def test_there_are_enough_entries_with_several_phrasings_each(entries: list[corpus.Entry]) -> None:
    assert len(entries) >= 200
    assert min(len(entry.questions) for entry in entries) >= 6


def test_ids_answers_and_questions_are_unique(entries: list[corpus.Entry]) -> None:
    assert len({entry.id for entry in entries}) == len(entries)
    assert len({entry.answer for entry in entries}) == len(entries)
    questions = [corpus.normalise(question) for entry in entries for question in entry.questions]
    assert len(set(questions)) == len(questions)
    assert all(questions)


def test_heldout_questions_are_enough_and_name_real_entries(
    entries: list[corpus.Entry], held: list[corpus.HeldOut]
) -> None:
    assert len(held) >= 40
    assert {item.id for item in held} <= {entry.id for entry in entries}


def test_no_heldout_question_is_trained_on(
    entries: list[corpus.Entry], held: list[corpus.HeldOut]
) -> None:
    trained = {corpus.normalise(q) for entry in entries for q in entry.questions}
    assert not trained & {corpus.normalise(item.question) for item in held}


def test_variations_never_equal_a_forbidden_question(entries: list[corpus.Entry]) -> None:
    entry = next(entry for entry in entries if entry.topic)
    # Forbid whatever the generator makes from one seed, and draw again from that seed.
    first = augment.Augmenter(random.Random(3))
    made = {corpus.normalise(first.question(entry)) for _ in range(50)}
    made -= {corpus.normalise(question) for question in entry.questions}
    second = augment.Augmenter(random.Random(3), forbidden=made)
    again = {corpus.normalise(second.question(entry)) for _ in range(50)}
    assert made
    assert not made & again


def test_a_trained_question_is_refused_as_heldout(
    entries: list[corpus.Entry], tmp_path: Path
) -> None:
    file = tmp_path / "heldout.toml"
    question = entries[0].questions[0].upper().rstrip("?")
    file.write_text(f'[[heldout]]\nquestion = "{question}"\nid = "{entries[0].id}"\n')
    with pytest.raises(corpus.CorpusError, match="is trained on"):
        corpus.load_heldout(entries, file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[entry]]\nid = "a"\nanswer = "b"\n', "lacks 'questions'"),
        ('[[entry]]\nid = "a"\nanswer = "b"\nquestions = ["c"]\n', "fewer than"),
        ('[[entry]]\nid = "a"\nanswer = ""\nquestions = ["c", "d", "e", "f"]\n', "length"),
        ('[[entry]]\nid = "a"\nanswer = "b"\nquestions = ["c", "C?", "e", "f"]\n', "asked by"),
        ("[[entry]\n", "one.toml"),
    ],
)
def test_a_faulty_corpus_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "one.toml").write_text(text)
    with pytest.raises(corpus.CorpusError, match=message):
        corpus.load(tmp_path)


def test_the_model_is_small() -> None:
    assert MODEL.stat().st_size <= LARGEST_MODEL


def test_the_model_says_what_it_is() -> None:
    reader = gguf.GGUFReader(MODEL)

    def value(key: str) -> Any:
        return reader.fields[key].contents()

    assert value("general.architecture") == "llama"
    assert value("general.name") == "llcuda demo"
    assert "demonstration" in value("general.description")
    assert value("tokenizer.ggml.model") == "gpt2"
    assert len(value("tokenizer.ggml.merges")) > 500
    assert "<|assistant|>" in value("tokenizer.chat_template")
    assert len(value("llcuda.corpus.sha256")) == 64
    tokens = value("tokenizer.ggml.tokens")
    assert tokens[value("tokenizer.ggml.eos_token_id")] == "<|end|>"
    assert "output.weight" not in {tensor.name for tensor in reader.tensors}
