"""A request that runs again from its start, hidden, until it has said what was said before.

What cannot be continued from its tokens is run again, with the same prompt and the same seed. What
comes is compared with the log: the text of each channel, one after the other, and the names of the
tools that are called. Where pieces end does not matter, since an upstream may put tokens together
in another way, nor do the ids of tool calls, which upstreams draw at random. What comes behind the
log's last character goes to the readers; nothing that they have is sent again or taken back.

A second run that says something else shows that a part of each would make an answer that no model
has given. It ends the generation as interrupted, with what there is.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llcuda_net.errors import Interrupted, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.channels import BEGINNING, TOOL_CALL, Switch
from llcuda_net.storage.records import unpacked
from llcuda_net.upstream.interface import Channel, CompletionEvent


class _Key(NamedTuple):
    """What a channel must have in common with the one in the log."""

    kind: str
    number: int
    name: str


class _Expected(NamedTuple):
    """Pieces `first` up to `behind` of the log, which are of one channel."""

    first: int
    behind: int
    key: _Key


class Replay:
    """Compares a second run with a log, and lets through what is behind it.

    Args:
        generation: its log at this moment is what must come again.
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._pieces = generation.pieces
        count = len(self._pieces)
        self._parts = [
            _Expected(first, behind, _key(channel))
            for first, behind, channel in generation.parts(0, count)
            if channel.kind == TOOL_CALL or any(self._pieces[first:behind])
        ]
        self._at = 0  # which part is being compared
        self._entered = False  # something of it has come
        self._piece = self._parts[0].first if self._parts else 0  # is compared next
        self._offset = 0  # and from which of its characters on
        #: Tokens of the log that have log-probabilities, and have not come again yet.
        self._scored = sum(len(unpacked(piece)) for piece in generation.logprobs or ())
        self._tokens = 0

    def __repr__(self) -> str:
        state = "caught up" if self.caught_up else f"at piece {self._piece}"
        return f"<Replay of {self._generation.id}: {state} of {len(self._pieces)}>"

    @property
    def caught_up(self) -> bool:
        """Whether all of the log has come again."""
        return self._at == len(self._parts)

    def unsaid(self, events: list[CompletionEvent]) -> list[CompletionEvent]:
        """What of these events is behind the log; notes the rest as progress.

        Raises:
            Interrupted: they are not what the log says.
        """
        for place, event in enumerate(events):
            if not self.caught_up:
                before = self._tokens
                self._tokens = event.tokens_predicted or before + 1
                rest = self._compare(event)
                if not self.caught_up:
                    self._without_scored(event)
                    if event.stop:
                        raise self._differs("it ended")
                    self._generation.replayed(self._tokens)
                    continue
                # Its last token is new where it has more to say than the log.
                self._generation.replayed(before if rest else self._tokens)
                event = msgspec.structs.replace(event, content=rest)
            return [self._without_scored(one) for one in (event, *events[place + 1 :])]
        return []

    def _compare(self, event: CompletionEvent) -> str:
        """Compare an event with the log; what its content has behind the log."""
        content, key = event.content, _key(event.channel)
        if not content and key.kind != TOOL_CALL:
            return ""
        while True:
            part = self._parts[self._at]
            if key != part.key:
                if not (self._entered and self._piece == part.behind):
                    raise self._differs(f"{_named(key)} came where there was {_named(part.key)}")
                self._next_part()  # never the last one: it would have been over already
                continue
            self._entered = True
            while content and self._piece < part.behind:
                content = self._match(content)
            self._skip_empty(part.behind)
            if self._piece < part.behind:
                return ""
            if self._at == len(self._parts) - 1:
                self._next_part()
                return content
            if content:
                raise self._differs(f"{_named(key)} went on")
            return ""

    def _match(self, content: str) -> str:
        """Compare with the rest of the next piece; what is left of the content behind it."""
        piece = self._pieces[self._piece]
        size = min(len(content), len(piece) - self._offset)
        if content[:size] != piece[self._offset : self._offset + size]:
            raise self._differs("other words came")
        self._offset += size
        if self._offset == len(piece):
            self._piece += 1
            self._offset = 0
        return content[size:]

    def _skip_empty(self, behind: int) -> None:
        while self._piece < behind and not self._pieces[self._piece]:
            self._piece += 1

    def _next_part(self) -> None:
        self._at += 1
        self._entered = False
        if not self.caught_up:
            self._piece = self._parts[self._at].first

    def _without_scored(self, event: CompletionEvent) -> CompletionEvent:
        """The event without the log-probabilities that the log has already."""
        found = event.completion_probabilities
        if self._scored and found:
            left = found[self._scored :]
            self._scored -= len(found) - len(left)
            return msgspec.structs.replace(event, completion_probabilities=left)
        return event

    def _differs(self, how: str) -> RequestError:
        return Interrupted(
            "what ran it was lost; it was run again from its start, with the same seed, and said "
            f"something else: after {self._piece} of {len(self._pieces)} pieces {how}",
            retry=True,
        )


def _key(channel: Switch | Channel | None) -> _Key:
    if channel is None:
        channel = BEGINNING
    return _Key(channel.kind, channel.index, channel.name if channel.kind == TOOL_CALL else "")


def _named(key: _Key) -> str:
    return f"a call of the tool {key.name[:60]!r}" if key.kind == TOOL_CALL else key.kind
