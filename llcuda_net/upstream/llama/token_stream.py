"""A token stream before its first byte: how long to wait for it, and how to ask for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from llcuda_net.errors import RequestError, UpstreamStalled
from llcuda_net.upstream.prompts.prefix_cache import tokens_in


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """How long an upstream may say nothing, by phase.

    Attributes:
        stall: seconds between two tokens.
        first: seconds until the first one, and for each token of the prompt, which is read before.
    """

    stall: float = 60.0
    first: float = 120.0
    a_token: float = 0.1

    def for_first(self, prompt: str | Sequence[int]) -> float:
        """Seconds until the first token of an answer to this prompt."""
        tokens = tokens_in(prompt) if isinstance(prompt, str) else len(prompt)
        return self.first + tokens * self.a_token


def stalled(seconds: float, what: str = "token") -> RequestError:
    """The error for an upstream that has said nothing for too long."""
    return UpstreamStalled(f"the upstream sent no {what} for {seconds:g} s", retry=True)


async def send_now(
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    data: bytes,
    on_sent: Callable[[], None],
) -> None:
    """Send, and report it at once: trio's own send gives every other task its turn first."""
    sent = 0
    if isinstance(stream, trio.SocketStream):
        with contextlib.suppress(BlockingIOError):
            sent = os.write(stream.socket.fileno(), data)
    if sent < len(data):
        await stream.send_all(data[sent:])
    on_sent()
