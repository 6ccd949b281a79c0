"""What a chat goes on from: here, in this process alone."""

from __future__ import annotations

from typing import Any, Protocol

from llcuda_net.cli.client import limit
from llcuda_net.client.events import Result
from llcuda_net.client.requests import PREVIOUS
from llcuda_net.sync import Client, Stream

Message = dict[str, Any]


class Talk(Protocol):
    """A conversation.

    Attributes:
        asked: the messages of the last question; empty: there is none that could be asked again.
        again: what `--continue` takes to go on with it; None: nothing does.
    """

    asked: list[Message]
    again: str | None

    def start(
        self, client: Client, asked: list[Message], system: str | None, *, instead: bool
    ) -> Stream:
        """Ask, behind all that was said.

        Args:
            instead: in place of the last question and its answer.

        Raises:
            what `Client.generate` raises.
        """

    def ended(self, stream: Stream, said: Message) -> None:
        """The answer is over: a message, as far as it came."""

    def stopped(self, client: Client, stream: Stream | None) -> Result | None:
        """Its reader wants no more of it; returns how it ended, where that is known.

        Args:
            stream: None: nothing of it has begun to come.

        Raises:
            ConnectError, RequestError: the server was not reached, or refused.
        """

    def document(self, form: str) -> bytes | None:
        """The conversation as a file, of the form markdown or json; None: it is kept here alone.

        Raises:
            ConnectError, RequestError: the server was not reached, or refused.
        """


class LocalTalk:
    """The history is kept here, and sent with each question.

    Args:
        arguments: what goes with every request.
        previous: the id of the answer that comes before the history, which the server has.
    """

    def __init__(self, arguments: dict[str, Any], previous: str | None = None) -> None:
        self._arguments = arguments
        self._previous = previous
        self._turns: list[tuple[list[Message], Message]] = []
        self._pending: list[Message] = []
        self._instead = False
        self._goes_on = False  # the server can go on with what it has
        self.asked: list[Message] = []
        self.again: str | None = None

    def __repr__(self) -> str:
        return f"<LocalTalk of {len(self._turns)} turns>"

    @property
    def history(self) -> list[Message]:
        """All that was said here."""
        return [one for asked, said in self._turns for one in (*asked, said)]

    @property
    def previous(self) -> str | None:
        """The id of what comes before the history."""
        return self._previous

    def start(
        self, client: Client, asked: list[Message], system: str | None, *, instead: bool = False
    ) -> Stream:
        """Ask, with the whole history."""
        self._pending, self._instead = asked, instead
        self._goes_on = PREVIOUS in client.features
        turns = self._turns[:-1] if instead else self._turns
        history = [one for before, said in turns for one in (*before, said)]
        return limit.generate(
            client,
            self._arguments,
            messages=[*history, *asked],
            system=system,
            splices=True,
            **({} if self._previous is None else {"previous": self._previous}),
        )

    def ended(self, stream: Stream, said: Message) -> None:
        """Put both behind the history."""
        if self._instead:
            del self._turns[-1:]
        self._turns.append((self._pending, said))
        self.asked = self._pending
        kept = stream.level not in (None, "memory") and self._goes_on
        self.again = stream.id if kept else None

    def stopped(self, client: Client, stream: Stream | None) -> Result | None:
        """What is left early is cancelled by itself."""
        if stream is not None:
            stream.close()
        return None

    def document(self, form: str) -> bytes | None:
        """It is kept here alone."""
        return None
