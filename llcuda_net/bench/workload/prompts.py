"""What is sent: one prompt every time, made-up ones of chosen lengths, or those of a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from llcuda_net.bench.workload.asks import Ask, Single
from llcuda_net.errors import ConfigError
from llcuda_net.util.numbers import plain
from llcuda_net.util.text_files import read_text

DEFAULT = "Explain what a slot is, and why a server has several."
#: Words of made-up prompts: short and common, so that most tokenisers make about one token of each.
_WORDS = str.split(
    "the of a to in is it for on as with that by this be are from or one all at each when how "
    "time work part word line page hand door tree road light water house field sound stone paper "
    "green small large early quick plain round first last open long"
)
KINDS = "TEXT, synthetic:WORDS, synthetic:LOW-HIGH, synthetic:lognormal:MEDIAN:SIGMA, or @FILE"


class Prompts:
    """The prompt of each request, by its number: the same number always gets the same text."""

    def __init__(self, texts: Sequence[str], described: str) -> None:
        if not texts:
            raise ConfigError("there are no prompts")
        self._texts = texts
        self.described = described

    def __repr__(self) -> str:
        return f"<Prompts: {self.described}>"

    def __getitem__(self, number: int) -> str:
        return self._texts[number % len(self._texts)]

    def __len__(self) -> int:
        return len(self._texts)

    def session(self, number: int) -> Single:
        """See Work."""
        return Single(Ask(self[number]))

    def for_run(self, run: int) -> Prompts:
        """See Work: the same for every run."""
        return self


def parse(text: str, *, seed: int, count: int = 512) -> Prompts:
    """Prompts as a command line names them: one of KINDS.

    Args:
        seed: of made-up prompts.
        count: how many different ones to make up; then they repeat.

    Raises:
        ConfigError: the text names none, or the file cannot be used.
    """
    if text.startswith("@"):
        return from_file(Path(text[1:]))
    if text == "synthetic" or text.startswith("synthetic:"):
        return synthetic(text.partition(":")[2] or "20-200", seed=seed, count=count)
    if not text.strip():
        raise ConfigError("the prompt is empty")
    return Prompts([text], "one prompt")


def synthetic(lengths: str, *, seed: int, count: int = 512) -> Prompts:
    """Made-up prompts whose lengths in words follow a distribution.

    Each begins with a number of its own, so that no two share a prefix that a server may cache.
    """
    import numpy as np  # not at the top: every --help shows KINDS

    rng = np.random.default_rng(seed)
    try:
        if lengths.startswith("lognormal:"):
            median, sigma = (float(part) for part in lengths.split(":")[1:])
            sizes = np.exp(rng.normal(np.log(median), sigma, count))
        else:
            low, _, high = lengths.partition("-")
            sizes = rng.integers(int(low), int(high or low), size=count, endpoint=True) + 0.0
    except ValueError:
        raise ConfigError(f"{lengths!r} is no distribution of lengths: {KINDS}") from None
    if not (np.isfinite(sizes).all() and sizes.min() >= 0 and sizes.max() <= 1_000_000):
        raise ConfigError(
            f"{lengths!r} gives prompts of {plain(sizes.min())} to {plain(sizes.max())} words"
        )
    texts = [
        " ".join([f"{rng.integers(1 << 31)}:", *rng.choice(_WORDS, size=max(1, round(size)))])
        for size in sizes
    ]
    return Prompts(texts, f"synthetic, {lengths} words")


def from_file(path: Path) -> Prompts:
    """The prompts of a JSONL file: `prompt` of each object, or each line's string.

    Raises:
        ConfigError: the file cannot be read, or a line is neither.
    """
    texts = []
    for number, line in enumerate(read_text(path, "the prompts").split("\n"), 1):
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            text = found.get("prompt") if isinstance(found, dict) else found
            if not isinstance(text, str) or not text:
                raise ConfigError(f"{path}, line {number}: no JSON string, nor an object `prompt`")
            texts.append(text)
    if not texts:
        raise ConfigError(f"{path} holds no prompt")
    return Prompts(texts, f"{len(texts)} prompts of {path.name}")
