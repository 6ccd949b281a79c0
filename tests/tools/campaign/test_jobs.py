"""The answers that campaigns expect are those of the synthetic language."""

from __future__ import annotations

import random

from tools.campaign.jobs import FLAVOURS, KINDS, SyntheticJobs, computed
from tools.synthetic.tokens import generated, generation


def test_what_is_expected_is_what_the_made_up_language_says() -> None:
    jobs = SyntheticJobs(random.Random(1))
    drawn = [jobs.draw() for _ in range(400)]
    assert {job.kind for job in drawn} == set(KINDS)
    assert {job.flavour for job in drawn} == set(FLAVOURS)
    late = 0
    for job in drawn:
        assert [piece.sequence for piece in job.pieces] == list(range(len(job.pieces)))
        if "raw" not in job.ask:
            continue
        text = generation(job.ask["raw"], job.ask["n_predict"])
        if job.flavour != "stop":
            assert (job.text, job.reason, job.stop) == (text, "length", None)
        elif job.stop is not None:
            assert (job.text, job.reason) == (text[: text.index(job.stop)], "stop")
        else:
            assert text.startswith(job.text)
        late += sum(len(piece.text) > 6 for piece in job.pieces)  # with what was held back
    assert late > 50


def test_ids_and_probabilities_are_those_of_the_last_token() -> None:
    pieces, reason, stop, tokens = computed("x [[split:3]]", {"n_predict": 30, "n_probs": 2})
    assert (reason, stop, tokens) == ("length", None, 30)
    ids = generated("x [[split:3]]", 30)
    assert [piece.id for piece in pieces] == [i for i in ids if i > 255 or i in _last_bytes(ids)]
    for piece in pieces:
        assert piece.logprobs is not None
        assert [found.id for found in piece.logprobs] == [piece.id]


def test_text_held_back_at_the_limit_is_expected() -> None:
    told, *_ = computed("held", {"n_predict": 4})
    beginning = "".join(piece.text for piece in told[2:])  # of a stop string that never ends
    pieces, reason, stop, tokens = computed("held", {"n_predict": 4, "stop": [beginning + "!"]})
    assert (reason, stop, tokens) == ("length", None, 4)
    assert [piece[:3] for piece in pieces] == [
        *[p[:3] for p in told[:2]],
        (2, beginning, told[3].id),
    ]


def _last_bytes(ids: list[int]) -> set[int]:
    """The last of the four bytes of each emoji."""
    return {ids[n + 3] for n, i in enumerate(ids[:-3]) if i == 0xF0}
