"""The end of an answer at its token limit, where its last text was held back."""

from __future__ import annotations

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import CompletionEvent, OnEvents, Upstream


class HeldBack:
    """Text that an upstream held back, since it may have become a stop string, up to the limit.

    A llama-server sends the id of such a token, and its text with a later one; at the token limit
    never. So the last event waits here until that text has been asked for.

    Args:
        stops: the stop strings.
        on_events: takes the events.
    """

    def __init__(self, stops: list[str], on_events: OnEvents) -> None:
        self._stops = stops
        self._on_events = on_events
        self._ids: list[int] = []
        self._predicted = 0  # tokens up to the last event
        self._whole = True  # each token since the last text sent its id
        self._final: CompletionEvent | None = None

    def pass_on(self, events: list[CompletionEvent]) -> None:
        """Pass events on, but for a last one that lacks text."""
        for event in events:
            if event.stop:
                lost = event.stop_type == "limit" and not event.content and self._ids
                self._final = event if lost and self._whole else None
            elif event.content:
                self._ids, self._whole = [], True
            elif event.tokens:
                # What ended within a character has sent nothing: its id is not known.
                self._whole = self._whole and event.tokens_predicted == self._predicted + 1
                self._ids += event.tokens
            self._predicted = event.tokens_predicted
        if self._final is not None:
            events = events[:-1]
        self._on_events(events)

    async def release(self, upstream: Upstream) -> None:
        """Pass on the last event, with the text that was held back."""
        if self._final is None:
            return
        try:
            text = await upstream.detokenize(self._ids)
        except RequestError:
            text = ""
        if any(text.endswith(stop[:n]) for stop in self._stops for n in range(1, len(stop))):
            self._final.content, self._final.tokens = text, self._ids[-1:]
        self._on_events([self._final])
