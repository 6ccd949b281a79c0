"""An answer as it grows: its pieces, put together by channel, with all that is known of them.

The pieces of an answer are one ordered list. A switch says from which of them on it goes on in
another channel; before the first one it is text. After a loss of the connection the server says
again in which channel the next piece is: a switch that is known already changes nothing. A splice
says before which piece another upstream has gone on. Both may come before the text has reached
their place.
"""

from __future__ import annotations

from collections import deque

import llcuda_protocol as wire
from llcuda_net.client.events import TEXT, Channel, Event, Piece, Spliced, ToolCall
from llcuda_protocol import TokenLogprob
from llcuda_protocol.kinds import MAX_SEQUENCE


class Answer:
    """Text, reasoning and tool calls of one answer.

    Args:
        first: sequence number of the first piece that will come.
        events: where each piece and splice is reported.

    Attributes:
        received: how many pieces there are, counted from the generation's very first.
        ids: one token id per piece that came, where they were asked for.
        logprobs: the same with log-probabilities.
    """

    def __init__(self, first: int, events: deque[Event]) -> None:
        self.received = first
        self.ids: list[int | None] = []
        self.logprobs: list[list[TokenLogprob]] = []
        self._events = events
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[Channel, list[str]]] = {}
        self._channel = TEXT
        self._growing = self._text  # what the channel has so far
        self._switches: deque[tuple[int, Channel]] = deque()  # whose place has not come yet
        self._last_switch = -1  # position of the latest one
        self._splices: deque[Spliced] = deque()
        self._last_splice = -1

    def __repr__(self) -> str:
        calls = f", {len(self._calls)} tool calls" if self._calls else ""
        return f"<Answer of {self.received} pieces, now {self._channel.kind}{calls}>"

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far, in their order; the arguments of the last may not be whole."""
        return [
            ToolCall(channel.id, channel.name, "".join(arguments))
            for _, (channel, arguments) in sorted(self._calls.items())
        ]

    def add(self, frame: wire.Tokens) -> None:
        """The next pieces; they begin where the last ones ended."""
        if not (self._splices or self._switches):
            self._add(frame)
            return
        start, size = 0, len(frame.pieces)
        while start < size:
            self._reach(frame.first + start)
            end = min(size, self._border() - frame.first)
            part = wire.Tokens(
                frame.stream,
                frame.first + start,
                frame.pieces[start:end],
                None if frame.ids is None else frame.ids[start:end],
                None if frame.logprobs is None else frame.logprobs[start:end],
            )
            self._add(part)
            start = end
        self._reach(self.received)

    def switch(self, position: int, channel: Channel) -> None:
        """From piece `position` on it is of this channel."""
        if position > self._last_switch:
            self._last_switch = position
            self._switches.append((position, channel))

    def splice(self, spliced: Spliced) -> None:
        """Another upstream has made the pieces from this one on. It is reported once."""
        if spliced.position > self._last_splice:
            self._last_splice = spliced.position
            self._splices.append(spliced)
            self._reach(self.received)

    def finish(self) -> None:
        """No more pieces come: report the splices at the end."""
        self._events.extend(self._splices)
        self._splices.clear()

    def _border(self) -> int:
        """The position of the next switch or splice, up to which nothing changes."""
        switch = self._switches[0][0] if self._switches else MAX_SEQUENCE
        splice = self._splices[0].position if self._splices else MAX_SEQUENCE
        return min(switch, splice)

    def _reach(self, position: int) -> None:
        """Do what is to be done before piece number `position`."""
        while self._splices and self._splices[0].position <= position:
            self._events.append(self._splices.popleft())
        while self._switches and self._switches[0][0] <= position:
            self._go_on_in(self._switches.popleft()[1])

    def _go_on_in(self, channel: Channel) -> None:
        self._channel = TEXT if channel.kind == "text" else channel
        if channel.kind == "tool_call":
            self._growing = self._calls.setdefault(channel.index, (channel, []))[1]
        elif channel.kind == "reasoning":
            self._growing = self._reasoning
        elif channel.kind == "text":
            self._growing = self._text
        else:  # of a later protocol: its pieces count, and belong to none of the three
            self._growing = []

    def _add(self, frame: wire.Tokens) -> None:
        """Add pieces of one channel."""
        first, pieces, ids, logprobs = frame.first, frame.pieces, frame.ids, frame.logprobs
        self._growing += pieces
        self.received = first + len(pieces)
        channel = self._channel
        if ids is None and logprobs is None and channel is TEXT:
            self._events.extend(map(Piece, range(first, self.received), pieces))
            return
        self.ids += ids or ()
        self.logprobs += logprobs or ()
        for i, text in enumerate(pieces):
            token = ids[i] if ids else None
            likely = logprobs[i] if logprobs else None
            self._events.append(Piece(first + i, text, token, likely, channel))
