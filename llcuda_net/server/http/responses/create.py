"""POST /v1/responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import msgspec
import trio

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.request import hash_of_request
from llcuda_net.server.http.delivery.deliver import (
    answer,
    api_of,
    begin,
    idempotency_key,
    last_event_id,
)
from llcuda_net.server.http.delivery.format import failure_of
from llcuda_net.server.http.delivery.leaving import RETRY_SECONDS, wanted_policy
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama.counting import count
from llcuda_net.server.http.llama.fitting import fitting, room
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import wrong
from llcuda_net.server.http.openai.chat import limited, options_of
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.models import meant
from llcuda_net.server.http.request import Headers
from llcuda_net.server.http.responses import conversation, earlier
from llcuda_net.server.http.responses.body import Asked, ResponseBody, conversation_of, read
from llcuda_net.server.http.responses.fields import RULES
from llcuda_net.server.http.responses.items import Input, together
from llcuda_net.server.http.responses.response_format import ResponseFormat, form_of_api
from llcuda_net.server.http.responses.transcript import Message, merged
from llcuda_net.storage.objects.conversations import Conversation
from llcuda_protocol import Generate
from llcuda_protocol.kinds import MAX_LINGER


async def create(exchange: Exchange) -> None:
    """Answer items with a response: whole, as a stream of events, or later."""
    host = exchange.host
    ignored = Ignored(lenient=host.settings.lenient, rules=RULES)
    asked = await strict_json.read(exchange.request.body, lambda data: read(data, ignored))
    chain = conversation_of(asked.body)
    part_of = None if chain is None else await conversation.named(exchange, chain, "conversation")
    async with AsyncExitStack() as stack:
        async with nullcontext() if part_of is None else host.objects.alone(part_of.id):
            request, form, before = await _in_place(exchange, asked, part_of)
            exchange.drop_body()
            default = host.settings.disconnect_seconds
            seconds = _seconds_alone(exchange.request.headers, form, default)
            generations, sent = await begin(exchange, [request], form, alone=seconds)
            (generation,) = generations
            later = form.background and not form.stream
            # What a key means may be one that is stored, whose id and form it has from then on.
            # One that has begun is in its conversation, though its client may have gone.
            with trio.CancelScope(shield=part_of is not None):
                if later or part_of is not None or _is_named(exchange):
                    await stack.enter_async_context(_accepted(exchange, generation))
                if part_of is not None:
                    # Of one that was named, and was asked otherwise, it is not known.
                    same = generation.request_hash == hash_of_request(request, api_of(form))
                    before = before if same else before._replace(basis=None)
                    question = conversation.question_of(asked.input.items)
                    await conversation.add(exchange, part_of, generation, before, question)
        # What a key or a retry has joined is answered as it was begun.
        known = form_of_api(generation.api)
        if known is not None:
            form = msgspec.structs.replace(known, stream=form.stream)
        if form.stream or not form.background:
            await answer(exchange, generations, form, sent=sent, headers=ignored.headers())
        else:
            await earlier.here(exchange, generation)
            named = {"x-llcuda-generation": generation.id}
            body = form.whole(generations)
            exchange.respond(200, body, headers={**ignored.headers(), **named})


async def _in_place(
    exchange: Exchange, asked: Asked, part_of: Conversation | None
) -> tuple[Generate, ResponseFormat, earlier.Before]:
    """As `prepared`, behind what this went on from when it was asked for the first time; and that.

    Raises:
        RequestError, HttpError: as there.
    """
    body = asked.body
    if part_of is None:
        before = await earlier.before(exchange, body.previous_response_id)
        return *await prepared(exchange, asked, before), before
    for begun in await conversation.begun(exchange, part_of, body):
        place = await conversation.place_of(exchange, part_of, begun)
        if place is None:
            continue
        before = await conversation.before(exchange, part_of, place)
        found = await prepared(exchange, asked, before)
        # Who names it means it; of other requests it is known by this.
        same = hash_of_request(found[0], api_of(found[1]))
        if begun.request_hash == same or _is_named(exchange):
            return *found, before
    place = await conversation.place(exchange, part_of, body)
    before = await conversation.before(exchange, part_of, place)
    return *await prepared(exchange, asked, before), before


def _is_named(exchange: Exchange) -> bool:
    headers = exchange.request.headers
    return bool(last_event_id(exchange)) or idempotency_key(headers) is not None


async def prepared(
    exchange: Exchange, asked: Asked, before: earlier.Before
) -> tuple[Generate, ResponseFormat]:
    """The request of the gateway that a response becomes, and how it is written.

    Args:
        before: what it goes on from.

    Raises:
        RequestError, HttpError: it goes on from what is not there, or there is no such model.
    """
    host, body = exchange.host, asked.body
    options = options_of(exchange.request.headers)
    given = await earlier.resolved(exchange, asked.input)
    _keep(options, body, before, given)
    model, told = meant(host, body.model or before.model)
    inherited = _without_system(before, body)
    messages = together(inherited, [one for one in given.messages if one is not None])
    places: Sequence[int] = range(len(messages))
    if body.truncation == "auto":
        places = await _that_fit(exchange, asked, model, messages)
    truncated = len(messages) - len(places)
    messages = [messages[place] for place in places]
    old = sum(place < len(inherited) for place in places)
    differing, number = earlier.kept(messages[old:], given.items)
    if body.instructions is not None:
        messages.insert(0, {"role": "system", "content": body.instructions})
    messages, merges = merged(messages)
    options.setdefault("priority", asked.priority)
    params = limited(asked.params, model, host)
    request = Generate(
        0, 0, messages=messages, params=params, chat=asked.chat, model=model, **options
    )
    form = ResponseFormat(
        told,
        stream=bool(body.stream),
        background=bool(body.background),
        store=not options.get("transient", False),
        inherited=old,
        merges=merges,
        given=differing,
        count=number,
        truncated=truncated,
        logprobs=asked.logprobs,
        encrypted=asked.encrypted,
        behind=None if before.place is None else before.place.behind,
        **_echoed(body),
    )
    return request, form


def _keep(
    options: dict[str, Any], body: ResponseBody, before: earlier.Before, given: Input
) -> None:
    """For how long it is kept: what was not to be stored is not stored by what goes on with it.

    Raises:
        HttpError: it is to be kept for longer than what it holds.
    """
    inherits = before.transient or given.transient
    if body.store is False or inherits:
        options["transient"] = True
    if inherits and body.store:
        raise wrong("store", "it goes on from a response that is not stored: leave store out")
    if options.get("transient") and conversation_of(body) is not None:
        raise wrong("conversation", "what is not stored cannot be part of a conversation")
    if before.level is not None:
        options.setdefault("level", before.level)


async def _that_fit(
    exchange: Exchange, asked: Asked, model: str | None, messages: list[Message]
) -> Sequence[int]:
    """The places of the messages that fit into the context of the model, the oldest left out.

    Raises:
        RequestError, HttpError: they cannot be counted.
    """
    pool = exchange.host.pool
    context = pool.context_of(model)
    if context is None:
        return range(len(messages))
    instructions = asked.body.instructions
    first = [] if instructions is None else [{"role": "system", "content": instructions}]

    async def count_of(left: Sequence[Message]) -> int:
        return await count(exchange, model, merged([*first, *left])[0], asked.chat)

    return await fitting(messages, room(context, asked.params.get("n_predict")), count_of)


def _without_system(before: earlier.Before, body: ResponseBody) -> list[dict[str, Any]]:
    """What is inherited: new instructions take the place of the system message of a chat."""
    messages = list(before.messages)
    if body.instructions is not None and not before.is_response:
        while messages and messages[0]["role"] == "system":
            del messages[0]
    return messages


def _echoed(body: ResponseBody) -> dict[str, Any]:
    """Members of the response that are as they were asked for."""
    found: dict[str, Any] = {
        "instructions": body.instructions,
        "previous": body.previous_response_id,
        "conversation": conversation_of(body),
        "instead_of": body.instead_of,
        "metadata": body.metadata or {},
        "tools": [msgspec.to_builtins(tool) for tool in body.tools or ()],
        "parallel": body.parallel_tool_calls is not False,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "max_tokens": body.max_output_tokens,
        "truncation": body.truncation or "disabled",
    }
    if body.tool_choice is not None:
        found["tool_choice"] = msgspec.to_builtins(body.tool_choice)
    for name in ("text", "reasoning"):
        value = getattr(body, name)
        if value is not None:
            members = msgspec.to_builtins(value)
            found[name] = {key: one for key, one in members.items() if one is not None}
    return found


def _seconds_alone(headers: Headers, form: ResponseFormat, default: float) -> float | None:
    """For how long a response goes on without a reader; None: as any answer of its kind.

    Args:
        default: of the server, for clients that can come back.

    Raises:
        RequestError, HttpError: the header for it is wrong.
    """
    wanted = wanted_policy(headers)
    if form.background:
        if wanted is not None and wanted < MAX_LINGER:
            raise HttpError(
                400,
                "x-llcuda-on-disconnect of a response in the background must be continue, or "
                "absent",
                param="x-llcuda-on-disconnect",
                code="invalid_request",
            )
        return float(MAX_LINGER)
    if not form.stream or wanted is not None:
        return wanted
    # The client has the id, and can come back with it. One that has nothing stored mostly does not.
    return default if form.store else min(default, RETRY_SECONDS)


@asynccontextmanager
async def _accepted(exchange: Exchange, generation: Generation) -> AsyncIterator[None]:
    """Begins when a generation will be there after a crash, too; it has a reader to the end.

    Raises:
        HttpError: it failed before.
    """
    reader = _Acceptance(generation)
    try:
        await reader.ready.wait()
        failure = failure_of(generation) if generation.ended and not generation.accepted else None
        if failure is not None:
            raise failure
        yield
    finally:
        generation.readers.remove(reader)
        exchange.host.left(generation)


class _Acceptance:
    """Reads of a generation whether it is accepted."""

    def __init__(self, generation: Generation) -> None:
        self.ready = trio.Event()
        self._generation = generation
        generation.join(self)
        self.pump()

    def __repr__(self) -> str:
        return f"<Acceptance of {self._generation.id}>"

    def pump(self) -> None:
        """See whether it is."""
        if self._generation.accepted or self._generation.ended:
            self.ready.set()
