"""What the server needs of an upstream, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from llcuda_net.upstream.llama.sse import CompletionEvent

OnEvents = Callable[[list[CompletionEvent]], None]


@dataclass(frozen=True, slots=True)
class Properties:
    """What an upstream says of itself.

    Attributes:
        slots: sequences that it runs at once.
        context: tokens that each of them holds.
        has_template: whether its model knows how a chat is written.
        build: version of its software.
        path: the model's file, by its own account; empty where it does not say.
        quantisation: of the model, by its own account; empty where it does not say.
    """

    model: str
    slots: int
    context: int
    has_template: bool
    build: str
    path: str = ""
    quantisation: str = ""


class Upstream(Protocol):
    """Every method raises RequestError when the upstream cannot be reached, refuses or fails."""

    @property
    def base_url(self) -> str:
        """Where it is."""

    @property
    def properties(self) -> Properties | None:
        """What it last said of itself; None while that is not known."""

    async def ask(self) -> Properties:
        """Its properties, from memory where they are known."""

    async def check(self) -> None:
        """Return if it answers, and takes work, now."""

    async def slots(self) -> list[bool] | None:
        """Whether each slot works, by number; None where it does not tell."""

    def forget(self) -> None:
        """Ask for the properties again next time: another process may answer then."""

    async def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the model's chat template makes of the messages."""

    async def embed(self, texts: list[str]) -> list[list[list[float]]]:
        """For each text its rows: one where the upstream pools, else one a token."""

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """The ids of a text, as `complete` makes them of a prompt where `special` is set.

        Args:
            special: put before and behind it what the model wants around a prompt. Text that
                spells a special token becomes that token with or without.
        """

    async def detokenize(self, ids: list[int]) -> str:
        """The text of ids, special tokens spelled out; U+FFFD where bytes are no UTF-8."""

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        """Stream a completion; returns after the last event.

        Cancelling it closes the connection at once, by which llama-server frees the slot.

        Args:
            prompt: text, or token ids.
            params: checked sampling parameters, and `id_slot` where it must be that slot.
            on_events: called with each batch of events, the last one with `stop` set.
            on_sent: called when the request is with the upstream.
        """
