"""The client's requests, and how each is sent again after the connection was lost."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import trio

import llcuda_protocol as wire
from llcuda_net.client.chat.messages import (
    chat_messages,
    is_plain,
    media_of,
    to_upload,
    with_uploads,
)
from llcuda_net.client.chat.parts import Source
from llcuda_net.errors import InvalidRequest, RequestError, Unsupported, request_error
from llcuda_protocol.kinds import MAX_LINGER

#: Bytes of tokens that may be under way on one stream.
WINDOW = 256 * 1024
#: Features of a server: options and parts of a chat, and channels of its answer; uploads.
CHANNELS, UPLOADS = "channels", "uploads"
#: Feature of a server: it goes on with conversations.
PREVIOUS = "previous"
#: What the client takes, for the server to know.
TAKES = (CHANNELS, "ignored", "epochs")
#: Errors of a server that stops, or that has no say any more: its generations go on elsewhere.
LEAVING = (wire.ErrorCode.SHUTTING_DOWN, wire.ErrorCode.LEASE_LOST)
#: What the ids of answers begin with where they are of another API; behind it is the generation's.
_PREFIXES = ("chatcmpl-", "cmpl-", "resp_", "msg_")


class Request:
    """A request that is sent again unchanged, because it is idempotent: embed, status.

    Args:
        make: builds its frame for a stream number.
        needs: the features that a server must have for it, each with what one without it lacks.
    """

    #: Whether credit governs what arrives for it, and whether it asked for splices.
    metered = splices = False

    def __init__(
        self, make: Callable[[int], wire.Frame], needs: Mapping[str, str] | None = None
    ) -> None:
        self._make = make
        self._needs = needs or {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self._make, 'func', self._make).__name__}>"

    @property
    def needs(self) -> Mapping[str, str]:
        """The features that it needs now, each with what a server without it lacks."""
        return self._needs

    def uploads(self, features: Container[str]) -> list[bytes]:
        """What must be uploaded before its frame, to a server of these features."""
        return []

    def frame(self, number: int, credit: int, uploads: Mapping[int, int]) -> wire.Frame:
        """The frame that requests it, or what is still missing of it.

        Args:
            uploads: the number of each upload, by the identity of its data.
        """
        return self._make(number)

    def saw(self, frame: wire.Frame) -> None:
        """Take note of what has arrived for it."""

    def passes(self, error: wire.Error, *, again: bool) -> bool:
        """Whether an error ends only this attempt, so that another may succeed.

        Args:
            again: it has been sent again after a loss, and has not been answered since.
        """
        if error.code in LEAVING:
            return True
        return again and error.retry and error.code != wire.ErrorCode.INTERRUPTED

    def refusal(self, error: wire.Error, *, again: bool) -> RequestError:
        """The exception for an error frame."""
        return refusal(error)


class Deletion(Request):
    """A generation that is deleted; sent again after a loss, it may be gone already.

    Attributes:
        sent: how often it was sent.
    """

    def __init__(self, generation: str) -> None:
        super().__init__(partial(wire.Delete, id=generation), {"delete": "cannot delete"})
        self.sent = 0

    def frame(self, number: int, credit: int, uploads: Mapping[int, int]) -> wire.Frame:
        """The frame that requests it."""
        self.sent += 1
        return super().frame(number, credit, uploads)


class Reading(Request):
    """A generation that is read; after a loss the reading goes on where it stopped.

    Attributes:
        accepted: the server's last acceptance of the request; None before the first.
        received: how many pieces there are so far, counted from the generation's very first.
    """

    metered = True

    def __init__(self, request: wire.Generate | wire.Attach) -> None:
        self._request = request
        self._started = trio.current_time()
        self._sent = False
        self._switched = False  # the answer has channels
        self.splices = request.splices
        self.accepted: wire.Accepted | None = None
        self.received = request.first if isinstance(request, wire.Attach) else 0

    def __repr__(self) -> str:
        where = f"{self.accepted.id}, {self.received} pieces" if self.accepted else "not accepted"
        return f"<Reading {where}>"

    @property
    def needs(self) -> Mapping[str, str]:
        """What a new request names; one that was accepted needs nothing more."""
        request = self._request
        channels = {CHANNELS: "knows no channels"} if self._switched else {}
        if isinstance(request, wire.Attach) or self.accepted is not None:
            return channels
        given = {
            "models": request.model,
            "priorities": request.priority,
            "deadlines": request.deadline,
        }
        wanted = [name for name, value in given.items() if value is not None]
        needs = {"pool": f"knows no {' and no '.join(wanted)}"} if wanted else {}
        messages = request.messages or []
        if request.chat is not None:
            needs[CHANNELS] = f"knows no {' and no '.join(request.chat)}"
        elif media_of(messages):
            needs[CHANNELS] = "takes no images and no audio"
        elif not is_plain(messages):
            needs[CHANNELS] = "takes only messages of a role and a text"
        if request.previous is not None:
            needs[PREVIOUS] = "cannot go on with a conversation"
        return needs

    def uploads(self, features: Container[str]) -> list[bytes]:
        """Images and recordings that are too large for the request's frame."""
        request = self._request
        if isinstance(request, wire.Attach) or self.accepted is not None:
            return []
        return to_upload(request.messages or []) if UPLOADS in features else []

    def frame(self, number: int, credit: int, uploads: Mapping[int, int]) -> wire.Frame:
        """The request itself until it was accepted, then the rest of the generation."""
        request = self._request
        if self.accepted is not None:
            return wire.Attach(
                number,
                self.accepted.id,
                credit,
                self.received,
                self.accepted.epoch,
                request.tokens,
                request.durable,
                request.splices,
                request.channels,
            )
        if isinstance(request, wire.Attach):
            return replace(request, stream=number, credit=credit)
        fresh = request.fresh and not self._sent
        self._sent = True
        deadline = request.deadline
        if deadline is not None:  # counted from the first attempt, not from now
            deadline = max(0.0, deadline - (trio.current_time() - self._started))
        messages = request.messages
        if messages is not None and uploads:
            messages = with_uploads(messages, uploads)
        return replace(
            request,
            stream=number,
            credit=credit,
            fresh=fresh,
            deadline=deadline,
            messages=messages,
        )

    def saw(self, frame: wire.Frame) -> None:
        """Count pieces; remember the last acceptance and epoch, and whether there are channels."""
        if isinstance(frame, wire.Tokens):
            self.received += len(frame.pieces)
        elif isinstance(frame, wire.Accepted):
            self.accepted = frame
        elif isinstance(frame, wire.Channel):
            self._switched = True
        elif isinstance(frame, wire.Splice) and frame.epoch is not None and self.accepted:
            self.accepted = replace(self.accepted, epoch=frame.epoch)

    def passes(self, error: wire.Error, *, again: bool) -> bool:
        """As for others; but a generation held in memory alone does not outlive the server."""
        lives = self.accepted is None or self.accepted.level != "memory"
        return super().passes(error, again=again) and (lives or error.code not in LEAVING)

    def refusal(self, error: wire.Error, *, again: bool) -> RequestError:
        """The exception; after a loss it says how much of the generation was read."""
        if not again or self.accepted is None:
            return refusal(error)
        read = f"{self.received} token{'' if self.received == 1 else 's'}"
        if error.code == wire.ErrorCode.UNKNOWN_GENERATION:
            message = f"the generation was lost with the server; the {read} that came are all of it"
        elif error.code == wire.ErrorCode.AHEAD and error.durable is not None:
            message = (
                f"the server has lost a part of the {read} that came: the first {error.durable} "
                f"are the same there; read on from there with --attach {self.accepted.id} "
                f"--from {error.durable} (in Python, attach(id, first={error.durable}))"
            )
        else:
            message = error.message
        return refusal(replace(error, message=message))


def refusal(error: wire.Error) -> RequestError:
    """The exception for an error frame."""
    return request_error(
        error.code,
        error.message,
        retry=error.retry,
        retry_after=error.retry_after,
        durable=error.durable,
    )


def generation_id(id_: str) -> str:
    """The id of a generation, by which an answer over HTTP may be known, too: `resp_…`, say."""
    for prefix in _PREFIXES:
        if id_.startswith(prefix):
            return id_.removeprefix(prefix)
    return id_


def linger(policy: str | float | None) -> float | None:
    """Seconds for which a generation goes on without a reader, as the protocol encodes them.

    Args:
        policy: "continue", "cancel", or seconds; None leaves it to the server.

    Raises:
        ValueError: none of these.
    """
    if policy == "continue":
        return MAX_LINGER
    if policy == "cancel":
        return 0
    if isinstance(policy, str):
        raise ValueError(f'on_disconnect is "continue", "cancel" or seconds, not {policy!r}')
    return policy


def urgency(priority: str | None) -> str | None:
    """The priority class of a request.

    Raises:
        ValueError: there is no such class.
    """
    if priority not in (None, "high", "normal", "low"):
        raise ValueError(f'priority is "high", "normal" or "low", not {priority!r}')
    return priority


def require(features: Container[str], request: Request, name: str) -> None:
    """Make sure that a server can serve a request.

    Raises:
        Unsupported: a feature that the request needs is missing.
    """
    for feature, lacks in request.needs.items():
        if feature not in features:
            raise Unsupported(f"{name} is of an earlier version: it {lacks}")


def what_to_send(
    prompt: str | Sequence[int] | None,
    raw: str | None,
    messages: Iterable[Mapping[str, Any]] | None,
    system: str | None,
    images: Sequence[Source] = (),
    sounds: Sequence[Source] = (),
    chat: dict[str, Any] | None = None,
    previous: str | None = None,
) -> dict[str, Any]:
    """The request's `prompt`, or its `messages` and `chat`; and its `previous`.

    Raises:
        TypeError: not exactly one of the three was given, or something that goes with a chat where
            there is none, or images and recordings beside messages.
        ConfigError: an image or a recording is none, or cannot be read.
        RequestError: there is nothing in it, or a message is not of its shape.
    """
    if sum(given is not None for given in (prompt, raw, messages)) != 1:
        raise TypeError("give exactly one of prompt, raw= and messages=")
    media = bool(images or sounds)
    if messages is not None or isinstance(prompt, str):
        if messages is not None and media:
            raise TypeError("images= and audio= go with a prompt; messages have them in content")
        text = prompt if isinstance(prompt, str) else None
        found = chat_messages(text, messages, system, images, sounds)
        earlier = None if previous is None else generation_id(previous)
        return {"messages": found, "chat": chat, "previous": earlier}
    for name, given in (
        ("system", system is not None),
        ("images and audio", media),
        ("previous", previous is not None),
    ):
        if given:
            raise TypeError(f"{name}= goes with a chat, not with raw text or token ids")
    if chat is not None:
        raise TypeError(f"{', '.join(chat)}: not with raw text or token ids, but with a chat")
    if not (raw or prompt):
        raise InvalidRequest("the prompt is empty")
    return {"prompt": raw if prompt is None else list(prompt)}
