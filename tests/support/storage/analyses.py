"""Results with log-probabilities, and figures that show what they were made of."""

from __future__ import annotations

from llcuda_net.storage.records import Logprobs, TokenLog, packed, unpacked
from llcuda_net.storage.results.interface import CertaintyStats


def certain(logprobs: list[Logprobs]) -> list[CertaintyStats]:
    """Figures that show what they were made of."""
    return [
        CertaintyStats(len(one), -unpacked(one[0])[0][2], None, 0.5, (0, 1), 2.0)
        for one in logprobs
    ]


def with_logprobs(number: int) -> TokenLog:
    tokens = [packed([[5, b"a", -float(number), []]]), packed([[6, b"b", -1.0, []]])]
    return TokenLog(["a", "b"], [5, 6], tokens)
