"""What every target does: it takes a request, and notes in its record what came when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from llcuda_net.batch.record import GATEWAY, SERVER, Record
from llcuda_net.batch.targets.facts import facts
from llcuda_net.errors import Overloaded, UpstreamBusy, UpstreamError

#: Seconds since the run's start.
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of itself.

    Attributes:
        model: its name.
        slots: of all upstreams together; None where the server does not say.
        version: which software it is, for people.
        api: by which it is asked: "llcuda", "llama" or "openai".
        context: tokens that a prompt and its answer may have together; None where it does not say.
        facts: all that it says of itself and its model, for records: see `targets.facts`.
    """

    model: str
    slots: int | None
    version: str
    api: str = ""
    context: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """What the way to it is called in records: only an llcuda-server is a gateway."""
        return GATEWAY if self.version.startswith("llcuda-server") else SERVER

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "slots": self.slots,
            "version": self.version,
            "api": self.api,
            "context": self.context,
            "facts": self.facts or facts(None, None, {"name": self.model}),
        }


@dataclass(slots=True)
class Answer:
    """What came back, besides what the record holds."""

    text: str
    reason: str
    model: str | None = None
    id: str | None = None


#: Work on a finished answer; returns the seconds that it took.
PostProcess = Callable[[Record, Answer], Awaitable[float]]


class Target(Protocol):
    """A server that can be asked.

    `ask` raises RequestError and ConnectError; the record then holds what came before.
    """

    name: str

    async def about(self) -> About:
        """What the server says of itself.

        Raises:
            ConnectError, RequestError: it does not say.
        """

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """Send a prompt as it is, without a template, and read the whole answer.

        Args:
            params: sampling parameters by llama-server's names.
            record: is filled in: `sent`, `chunks`, `tokens`, `phases` and the counts.
            now: seconds since the run's start.
            more: `messages`, a chat in place of the prompt; `texts`, to be embedded, in place of an
                answer; `key` and `on_disconnect`, for an llcuda-server only.

        Raises:
            ConnectError, RequestError: there is no whole answer.
        """


def embedded(record: Record, vectors: Sequence[object], texts: int) -> Answer:
    """The answer to texts that were embedded: no text, no tokens, no first token.

    Raises:
        UpstreamError: there are fewer or more vectors than texts.
    """
    if len(vectors) != texts:
        raise UpstreamError(f"the server sent {len(vectors)} vectors for {texts} texts")
    record.counted = True
    return Answer("", "embedded")


@contextmanager
def overloaded_when_busy() -> Iterator[None]:
    """Turns an upstream's refusal for now into what an llcuda-server answers in that case."""
    try:
        yield
    except UpstreamBusy as error:
        raise Overloaded(error.message, retry=True, retry_after=error.retry_after) from None
