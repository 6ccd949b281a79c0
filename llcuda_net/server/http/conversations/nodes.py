"""What there is to see of one entry of a conversation: asked, answered, and how it went.

Everything here but `Source.of_running` blocks: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import read_again, request_of
from llcuda_net.generation.state import State
from llcuda_net.server.http.responses import earlier
from llcuda_net.server.http.responses.answers import Shape, outline_of, response_of
from llcuda_net.server.http.responses.response_format import form_of
from llcuda_net.server.http.responses.transcript import Item, shown
from llcuda_net.storage.channels import TOOL_CALL
from llcuda_net.storage.records import Result, Switch

#: Parameters of a request that are shown by names of their own, or that are no sampling.
_NO_SAMPLING = ("n_predict", "n_probs", "seed", "grammar", "json_schema", "cache_prompt")
#: Of a response, what a node has as it is.
_KEPT = ("model", "status", "error", "incomplete_details", "usage", "instructions", "tools")


@dataclass(slots=True)
class Source:
    """What a node is made of.

    Attributes:
        response: of the Responses API, without the log-probabilities.
        input: what was asked, without what it went on from in the conversation.
        params: of the request, as it is stored.
        pieces, switches: of the log, as far as they may be seen.
        stretches: from which piece on which item of the output is.
    """

    generation: str
    shape: Shape
    response: dict[str, Any]
    input: list[Item]
    params: Mapping[str, Any]
    created: int
    finished: int | None
    timings: Mapping[str, float] | None
    seed: int | None
    tokens: int
    pieces: Sequence[str]
    switches: Sequence[Switch]
    stretches: Sequence[tuple[int, int]]
    queue: dict[str, Any] | None = None

    @classmethod
    def of_result(cls, result: Result, conversation: str) -> Source:
        """Of one that is stored.

        Args:
            conversation: its id.
        """
        found = cls._of(read_again(result), result.request, conversation)
        found.timings, found.seed = result.timings or None, result.seed
        return found

    @classmethod
    def of_running(cls, generation: Generation, conversation: str) -> Source:
        """Of one in memory, as it is now; its log must be here."""
        found = cls._of(generation, request_of(generation), conversation)
        if generation.ended:
            found.timings = generation.phases()
        if generation.state is State.QUEUED and generation.place.position:
            place = generation.place
            found.queue = {"position": place.position, "wait": place.wait}
        return found

    @classmethod
    def _of(cls, generation: Generation, asked: Mapping[str, Any], conversation: str) -> Source:
        form = form_of(generation)
        plain = msgspec.structs.replace(form, logprobs=None, encrypted=False)
        outline, count = outline_of(generation, form), generation.visible
        made = generation.outcome.usage.get("completion_tokens", 0)
        seed = generation.params.get("seed") if generation.seed is None else generation.seed
        return cls(
            generation.id,
            form,
            response_of(generation, plain),
            _input(generation.id, form, asked, conversation),
            asked.get("params") or {},
            generation.created,
            generation.finished,
            None,
            seed,
            max(count, made) if generation.ended else count,
            generation.pieces[:count],
            list(generation.switches),
            [(one.first, one.item) for one in outline.stretches],
        )


def node_of(source: Source, hidden: Collection[str], *, render: bool) -> dict[str, Any]:
    """A response of a conversation as JSON values, without its place in the tree.

    Args:
        hidden: items that were deleted.
        render: with the answer as blocks of HTML.
    """
    params, shape, response = source.params, source.shape, source.response
    output = [one for one in response["output"] if one["id"] not in hidden]
    found = {
        "object": "conversation.entry",
        "type": "response",
        "id": response["id"],
        "generation": source.generation,
        "created_at": source.created / 1e9,
        "completed_at": None if source.finished is None else source.finished / 1e9,
        **{name: response[name] for name in _KEPT},
        "input": [one for one in source.input if one["id"] not in hidden],
        "output": output,
        "text": _said(output, "output_text"),
        "reasoning": _said(output, "reasoning_text") or None,
        "tokens": source.tokens,
        "tokens_per_second": _speed(source),
        "queue": source.queue,
        "timings": source.timings,
        "sampling": {name: one for name, one in params.items() if name not in _NO_SAMPLING},
        "seed": source.seed,
        "max_output_tokens": response["max_output_tokens"],  # as asked, not what the context bounds
        "reasoning_effort": (shape.reasoning or {}).get("effort"),
        "logprobs": params.get("n_probs") if shape.logprobs is None else shape.logprobs,
        "metadata": shape.metadata,
    }
    if render:
        found["blocks"] = _blocks(source, hidden)
    return found


def node_of_item(item: Item, *, render: bool) -> dict[str, Any]:
    """An item that a client added as JSON values, without its place in the tree."""
    found = {
        "object": "conversation.entry",
        "type": "item",
        "id": item["id"],
        "input": [shown(item)],
        "output": [],
    }
    if render:
        from llcuda_net.server.http.markdown.blocks import text_blocks  # few ask for it

        answered = item["type"] == "message" and item["role"] == "assistant"
        found["blocks"] = text_blocks(_said([item], "output_text")) if answered else []
    return found


def _input(id_: str, shape: Shape, asked: Mapping[str, Any], conversation: str) -> list[Item]:
    whole = shape.conversation != conversation
    messages, prompt = asked.get("messages"), asked.get("prompt")
    try:
        found = earlier.input_items(id_, shape, messages, prompt, whole=whole)
    except RequestError:  # token ids
        return []
    return [shown(one) for one in found]


def _said(items: Sequence[Item], kind: str) -> str:
    parts = (part for one in items for part in one.get("content") or ())
    return "".join(part["text"] for part in parts if part["type"] == kind)


def _speed(source: Source) -> float | None:
    """Tokens per second, from the first one on."""
    seconds = (source.timings or {}).get("generation", 0) / 1e3
    made = (source.response["usage"] or {}).get("output_tokens", 0)
    return round((made - 1) / seconds, 2) if made > 1 and seconds > 0 else None


def _blocks(source: Source, hidden: Collection[str]) -> list[dict[str, Any]]:
    from llcuda_net.server.http.markdown.blocks import blocks_of  # few ask for it

    gone = [one for one in source.response["output"] if one["id"] in hidden]
    if not gone:
        return blocks_of(source.pieces, source.switches)
    # What is left has the places that it has in the log.
    found = blocks_of(_without(source, {_number(one) for one in gone}), source.switches)
    calls = {one.get("call_id") for one in gone}
    return [one for one in found if one["channel"] != TOOL_CALL or one["id"] not in calls]


def _number(item: Item) -> int:
    """Of an item, in the output that it is of."""
    return int(item["id"].rpartition("_")[2])


def _without(source: Source, numbers: Collection[int]) -> list[str]:
    """The pieces of a log, empty where they are of these items."""
    pieces = list(source.pieces)
    ends = [first for first, _ in source.stretches[1:]] + [len(pieces)]
    for (first, item), end in zip(source.stretches, ends, strict=True):
        if item in numbers:
            pieces[first:end] = [""] * len(pieces[first:end])
    return pieces
