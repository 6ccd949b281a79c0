"""Requests with which the conversation of an earlier generation goes on.

Once it is known what they inherit, they are requests like any other: what is journalled and stored
of them has all of their messages, and the earlier generation is no longer needed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llcuda_net.config.users import User, view_of
from llcuda_net.errors import InvalidRequest, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import check_key
from llcuda_net.generation.request import hash_of_request
from llcuda_net.generation.state import State
from llcuda_net.server.generations.finder import Finder
from llcuda_net.storage.chat_history import history
from llcuda_net.storage.records import Level, Result
from llcuda_protocol import Generate

#: States of generations that answer a request with the same key.
_ANSWERS = (State.QUEUED, State.RUNNING, State.DONE)

Messages = list[dict[str, Any]]

#: Options of a chat that are about one answer, and not about the conversation.
_OF_ONE_ANSWER = frozenset({"tool_choice"})


async def previous_of(request: Generate, user: User, finder: Finder) -> Result | Generation:
    """What a request names as the previous generation: one of the user; for an admin, any.

    Where that is gone: the generation that the request's key means already, which needs it no more.

    Raises:
        RequestError: there is none, it still runs, or the store cannot be read.
    """
    assert request.previous is not None
    try:
        return await finder.result(request.previous, view_of(user))
    except RequestError:
        if request.key is None or request.fresh:
            raise
        known = await finder.find_by_key(request.key, user.name)
        # What did not come to its end is tried again.
        if known is None or known.scope.cancel_called or known.state not in _ANSWERS:
            raise
        check_key(request.key, known.request_hash, hash_of_request(request))
        return known


def following(request: Generate, earlier: Result) -> Generate:
    """A request with all that it inherits from the generation that it names as the previous one.

    The messages of the conversation come before its own; a system message of its own takes the
    place of theirs. Options of the chat and the model are inherited unless it names them, and
    parameters are not. What was not to be stored is not stored by what goes on with it, either.

    Raises:
        InvalidRequest: it says nothing, or not in messages; or that was no conversation.
    """
    system, more = _split(_messages(request))
    if not more:
        raise InvalidRequest("give messages or a prompt with which the conversation goes on")
    inherited, before = _split(history(earlier))
    return replace(
        request,
        prompt=None,
        messages=(system or inherited) + before + more,
        chat=_options(earlier.request.get("chat"), request.chat),
        model=earlier.request.get("model") if request.model is None else request.model,
        level=_level(request.level, earlier.level),
        transient=request.transient or earlier.transient,
    )


def _messages(request: Generate) -> Messages:
    """What it says itself, as messages."""
    if request.prompt is not None and request.messages is None:
        if not isinstance(request.prompt, str):
            raise InvalidRequest("a conversation goes on with messages or text, not with token ids")
        return [{"role": "user", "content": request.prompt}]
    if request.prompt is not None:
        raise InvalidRequest("give a prompt or messages, one of the two")
    return request.messages or []


def _level(wanted: str | None, before: Level) -> str | None:
    """The level: as the server has it, unless the conversation is kept in memory only."""
    return str(before) if wanted is None and before is Level.MEMORY else wanted


def _split(messages: Messages) -> tuple[Messages, Messages]:
    """The system messages that these begin with, and the others."""
    for i, message in enumerate(messages):
        if message["role"] != "system":
            return messages[:i], messages[i:]
    return messages, []


def _options(before: dict[str, Any] | None, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The options of the chat: as they were, unless the request names them."""
    kept = {name: one for name, one in (before or {}).items() if name not in _OF_ONE_ANSWER}
    return {**kept, **(given or {})} or None
