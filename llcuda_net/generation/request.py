"""What comes in: a request or a journal entry becomes a generation; readers are checked.

Nothing here waits or changes anything.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import trio

from llcuda_net.config.settings import Settings
from llcuda_net.config.users import PRIORITIES, Priority, User
from llcuda_net.errors import Ahead, InvalidRequest
from llcuda_net.generation import sampling
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.persistence import seconds_of
from llcuda_net.storage.records import Level, hash_of
from llcuda_net.storage.starting import Recovered
from llcuda_net.util.time_ids import uuid7
from llcuda_protocol import Generate

#: Bounds of the integers that the protocol has; floats beyond them stay floats.
_LEAST, _BEYOND = -(2.0**63), 2.0**64


def from_request(
    request: Generate,
    settings: Settings,
    level: Level,
    context: int | None,
    user: User,
    most_log: int,
    api: dict[str, Any] | None = None,
    asked: Generate | None = None,
    id_: str | None = None,
) -> Generation:
    """The generation that a request asks for.

    Args:
        level: how much it shall survive.
        context: tokens that a slot of each upstream holds; None if that is not known.
        most_log: bytes that a log with log-probabilities may take. They limit the tokens where the
            request does not.
        api: see Generation.
        asked: the request as it came, where it has inherited since: by it requests are compared.
        id_: its id; None: a new one.

    Raises:
        RequestError: the request is wrong.
    """
    asked = request if asked is None else asked
    _check_prompt(request)
    if request.transient and request.cache:
        raise InvalidRequest(
            "what is not to be stored (transient, x-llcuda-store: false) cannot come from a cache: "
            "ask for one of the two"
        )
    params = sampling.check(_numbers_alike(request.params), context)
    fitting = sizes.tokens_within(params, most_log)
    if fitting is not None and "n_predict" not in request.params:
        params["n_predict"] = min(fitting, params.get("n_predict", fitting))
    timeout = settings.timeout
    if request.timeout is not None:
        timeout = min(timeout, request.timeout)
    on_disconnect = request.on_disconnect
    alike = comparable(request.params)
    # Of most requests it is the same, and a long prompt need not be hashed twice.
    earlier = b"" if alike is request.params else _hash(asked, request.params, api)
    return Generation(
        request.prompt,
        request.messages,
        params,
        timeout,
        key=request.key,
        chat=request.chat,
        seed=None if sampling.has_seed(params) else secrets.randbelow(sampling.SEEDS),
        request_hash=_hash(asked, alike, api),
        earlier_hash=earlier,
        owner=user.name,
        user=user,
        wanted=request.model,
        priority=priority_of(request.priority, user),
        deadline=math.inf if request.deadline is None else trio.current_time() + request.deadline,
        on_disconnect=settings.disconnect_seconds if on_disconnect is None else on_disconnect,
        level=level,
        cache=request.cache,
        fresh=request.fresh,
        transient=request.transient,
        api=api,
        previous=request.previous,
        id=uuid7() if id_ is None else id_,
    )


#: What a request may name in its conversation, to say where in it the answer stands.
_PLACE = ("previous", "instead_of")


def hash_of_request(request: Generate, api: dict[str, Any] | None = None) -> bytes:
    """Equal for requests that ask for the same: the same choice of as many, in one conversation."""
    return _hash(request, comparable(request.params), api)


def _hash(request: Generate, params: Any, api: dict[str, Any] | None) -> bytes:
    asked = [request.prompt, request.messages, params]
    if request.chat is not None:
        asked += [request.model, comparable(request.chat)]
    elif request.model is not None:
        asked.append(request.model)
    if request.previous is not None:
        asked.append({"previous": request.previous})
    if api is not None and api.get("n", 1) > 1:
        asked.append({"n": api["n"], "index": api["index"]})
    shape = {} if api is None else api.get("shape", {})
    if shape.get("conversation") is not None:
        place = {name: shape[name] for name in _PLACE if shape.get(name) is not None}
        asked.append({"conversation": shape["conversation"], **place})
    if request.transient:  # what is kept must not answer it, nor it what is to be kept
        asked.append({"transient": True})
    return hash_of(asked)


def _numbers_alike(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with 40 for 40.0: what compares as equal is as good where a count is wanted."""
    return {n: comparable(v) if type(v) is float else v for n, v in params.items()}


def comparable(value: Any) -> Any:
    """A JSON value in which equal numbers are alike: an integer, where one has the same value.

    It is the value itself where they are alike already.

    Many languages have one kind of number only, so a client cannot always choose between 0 and 0.0.
    """
    if type(value) is float and value.is_integer() and _LEAST <= value < _BEYOND:
        return int(value)
    if type(value) is dict:
        found = {key: comparable(entry) for key, entry in value.items()}
        return found if any(found[key] is not value[key] for key in found) else value
    if type(value) is list:
        entries = [comparable(entry) for entry in value]
        same = all(one is other for one, other in zip(entries, value, strict=True))
        return value if same else entries
    return value


def priority_of(wanted: str | None, user: User) -> Priority:
    """The class that a request is in.

    Raises:
        InvalidRequest: there is no such class.
    """
    if wanted is None:
        return max(Priority.NORMAL, user.priority)
    priority = PRIORITIES.get(wanted)
    if priority is None:
        names = ", ".join(PRIORITIES)
        raise InvalidRequest(
            f"there is no priority {wanted[:60]!r}: choose one of {names}",
        )
    return max(priority, user.priority)


def _check_prompt(request: Generate) -> None:
    if (request.prompt is None) == (request.messages is None):
        raise InvalidRequest("give a prompt or messages, one of the two")
    messages = request.messages
    if not (request.prompt or messages) or (messages and _is_empty(messages[-1])):
        raise InvalidRequest("the prompt is empty")
    if request.chat is not None and messages is None:
        raise InvalidRequest("options of a chat go with messages, not with a prompt")
    if "input_suffix" in request.params and type(request.prompt) is not str:
        raise InvalidRequest("input_suffix goes with a prompt that is text")


def _is_empty(message: dict[str, Any]) -> bool:
    """Whether there is nothing in a message; a tool may well have had nothing to say."""
    said = message.get("content") or message.get("tool_calls")
    return not said and message.get("role") != "tool"


def from_journal(entry: Recovered, settings: Settings, user: User) -> Generation:
    """The generation that ran when the last server ended, as far as it had come."""
    opened = entry.entry.opened
    request = opened.request
    on_disconnect = seconds_of(opened.on_disconnect)
    if request.get("api") is not None:
        # Whoever read it over HTTP did not go away: the server did. They have time to come back.
        on_disconnect = max(on_disconnect, settings.disconnect_seconds)
    generation = Generation(
        request.get("prompt"),
        request.get("messages"),
        request.get("params") or {},
        float(request.get("timeout") or settings.timeout),
        key=opened.key,
        request_hash=opened.request_hash,
        owner=opened.owner,
        user=user,
        wanted=request.get("model"),
        priority=PRIORITIES.get(request.get("priority", ""), Priority.NORMAL),
        on_disconnect=on_disconnect,
        level=opened.level,
        id=opened.generation,
        created=opened.created,
        chat=request.get("chat"),
        seed=request.get("seed"),
        api=request.get("api"),
        previous=request.get("previous"),
        transient=opened.transient,
    )
    splices = [(splice.position, splice.epoch) for splice in entry.entry.splices]
    generation.restore(entry.packed, splices, entry.entry.switches)
    return generation


def check_position(generation: Generation, first: int, epoch: int | None) -> None:
    """Refuse a reader that has more of a generation than there is.

    Args:
        first: the first piece that it wants, so it has those before.
        epoch: in which it last read; None: it has not read anything.

    Raises:
        RequestError: it has what was lost.
    """
    same = generation.count
    if epoch is not None:
        same = generation.same_since(epoch)
    elif not generation.ended:
        return  # it waits until there is so much
    if first > same and epoch is None:
        count = f"{same} piece{'' if same == 1 else 's'}"
        raise Ahead(f"the answer is over, and has {count}: there is no piece {first}", durable=same)
    if first > same:
        raise Ahead(
            f"piece {first} was asked for, and only the first {same} are as they were: "
            "what came after them was lost with the server's power, or never was",
            durable=same,
        )
