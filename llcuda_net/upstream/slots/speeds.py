"""What an upstream takes for its work, learnt from what it did: the outlook for the next answer."""

from __future__ import annotations

from llcuda_net.upstream.slots.choice import ANSWER, READ_MS, REUSE, Outlook
from llcuda_net.upstream.slots.step_time import KvCache, Sample, StepTime

#: Weights of the newest answer's length, and of whether the newest prompt goes on with another.
_NEWEST_ANSWER, _NEWEST_USE = 0.1, 0.1


class ReadTime:
    """Milliseconds to read a token of a prompt: the slope of a line through what was measured.

    What a prompt takes besides its tokens, as the step of the other slots that is made with it, is
    the line's intercept. As long as all prompts were of one length nothing tells the two apart, and
    the slope is drawn towards that of a line through the origin (ridge regression).
    """

    #: Weight that what was measured before keeps; and of the line through the origin, as the share
    #: of the lengths' mean square that the lengths' variance stands against.
    KEPT, ORIGIN = 0.95, 0.05

    def __init__(self) -> None:
        self._count = self._n = self._ms = self._nn = self._n_ms = 0.0

    def __repr__(self) -> str:
        return f"<ReadTime {self.ms:.3g} ms a token>"

    def forget(self) -> None:
        """Another process answers."""
        self._count = self._n = self._ms = self._nn = self._n_ms = 0.0

    def record(self, tokens: int, ms: float) -> None:
        """So many tokens of a prompt were read in so many milliseconds."""
        if tokens < 1 or not 0.0 < ms < 1e9:
            return
        kept = self.KEPT
        self._count = self._count * kept + 1.0
        self._n = self._n * kept + tokens
        self._ms = self._ms * kept + ms
        self._nn = self._nn * kept + tokens * tokens
        self._n_ms = self._n_ms * kept + tokens * ms

    @property
    def ms(self) -> float:
        """Milliseconds a token; READ_MS before any was measured."""
        if not self._count:
            return READ_MS
        through_origin = self._n_ms / self._nn
        covariance = self._n_ms - self._n * self._ms / self._count
        variance = max(0.0, self._nn - self._n * self._n / self._count)
        ridge = self.ORIGIN * self._nn
        slope = (covariance + ridge * through_origin) / (variance + ridge)
        # Noise must not make reading free, nor dearer than all that was measured.
        return min(through_origin, max(slope, self.ORIGIN * through_origin))


class Speeds:
    """What is known of how fast an upstream is, and what it is used for.

    Args:
        unified: its KV cache is known to be unified.

    Attributes:
        steps: of decoding.
        reading: of prompts.
    """

    def __init__(self, unified: bool = False) -> None:
        self.steps = StepTime(unified)
        self.reading = ReadTime()
        self._told = self.steps.cache
        self._answer = ANSWER
        self._reuse = REUSE

    def __repr__(self) -> str:
        return f"<Speeds: {self.steps!r}, {self.reading!r}, answers of {self._answer:.0f} tokens>"

    def forget(self) -> None:
        """Another process answers next: it may have been started with other settings."""
        self.steps.forget()
        self.reading.forget()
        self._told = self.steps.cache

    def record_steps(self, sample: Sample | None) -> bool:
        """Take account of decode steps that were measured; None: there were none.

        Returns whether they say of the KV cache what was not known before.
        """
        if sample is None:
            return False
        self.steps.record(sample)
        told, cache = self._told, self.steps.cache
        if cache is KvCache.UNKNOWN:
            return False
        self._told = cache
        return cache is not told

    def record_answer(self, tokens: int) -> None:
        """An answer had so many tokens."""
        self._answer += _NEWEST_ANSWER * (tokens - self._answer)

    def record_prompt(self, returns: bool) -> None:
        """A prompt came; whether it goes on with what some slot was left with, be it lost since.

        One of two that do means that one of two texts is asked for again, however many are kept.
        """
        self._reuse += _NEWEST_USE * (returns - self._reuse)

    def outlook(self, most: int | None, found: float) -> Outlook:
        """What is expected of the next answer.

        Args:
            most: tokens that it may have; None: any number.
            found: share of what its slots are thought to hold that the upstream finds there.
        """
        steps = self._answer if most is None else min(self._answer, most)
        return Outlook(
            read_ms=self.reading.ms,
            split_ms=self.steps.split_ms,
            step_ms=self.steps.whole_ms,
            steps=steps,
            reuse=self._reuse,
            found=found,
        )
