"""Words are read as the tokens that they were written as; the engine loads the file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.slots.random_model import END, SHAPES, SPACE, vocabulary, write
from tools.slots.workload import words


def test_merges_lead_to_each_word_by_one_way_only() -> None:
    tokens, merges = vocabulary(12_000)
    assert len(tokens) == len(set(tokens)) == 12_000
    assert tokens[0] == END
    ends = {merge.replace(" ", "") for merge in merges}
    assert ends == set(tokens[257:])
    assert len(ends) == len(merges)


def test_words_of_prompts_are_in_the_vocabulary() -> None:
    tokens = set(vocabulary(200_000)[0])
    found = [SPACE + word for word in words(random.Random(1), 200).split()]
    assert sum(word in tokens for word in found) > 20  # as many as its size allows
    assert all(word[:5] in tokens for word in found)


@pytest.mark.parametrize("quantised", [True, False])
def test_a_file_is_written_whole(tmp_path: Path, quantised: bool) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    assert write(path, SHAPES["tiny"], quantised) == path.stat().st_size
    reader = gguf.GGUFReader(path)
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    assert shapes["blk.1.ffn_up.weight"] == (64, 192)
    assert shapes["token_embd.weight"] == (64, 12_000)
    assert list(tmp_path.iterdir()) == [path]
