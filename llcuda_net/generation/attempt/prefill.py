"""How a chat goes on that only its upstream can render and parse: from the answer's text so far.

The answer so far is the beginning of the last message, the assistant's, and the upstream goes on
behind it (llama-server: `continue_final_message`). So nothing is said twice, and no second run has
to be like the first one, as a replay must; but the text is tokenised anew, and that place must be
where the template writes it. So it is rendered first, and looked at: an upstream that knows nothing
of this, or a template that changes what it is given, is found out before anything is sent.

A tool call that has begun is no text that a template would take, and is replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llcuda_net.errors import RequestError
from llcuda_net.generation import sampling
from llcuda_net.generation.attempt.continuation import CannotContinue, check_state, later_seed
from llcuda_net.storage.channels import REASONING, TEXT, TOOL_CALL, Part
from llcuda_net.upstream.interface import BLAMED, Upstream


@dataclass(frozen=True, slots=True)
class Prefill:
    """How to go on.

    Attributes:
        messages: those of the request, and the answer so far as the beginning of one more.
        options, params: with which to ask; see Upstream.chat.
        tokens: how many tokens were generated so far.
    """

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    params: dict[str, Any]
    tokens: int


async def prefill(
    messages: list[dict[str, Any]],
    options: Mapping[str, Any],
    params: Mapping[str, Any],
    pieces: Sequence[str],
    parts: Sequence[Part],
    tokens: int,
    upstream: Upstream,
) -> Prefill:
    """How to continue the answer to a chat.

    Args:
        messages, options, params: with which the chat began; the parameters checked.
        pieces: what was emitted, at least one.
        parts: of which channels that is.
        tokens: how many tokens that is.
        upstream: has the same model.

    Raises:
        CannotContinue: the upstream would not go on from there.
        RequestError: the upstream cannot be asked.
    """
    check(messages, params, parts)
    answer = _answer(pieces, parts)
    left = dict(params)
    if (limit := int(params.get("n_predict", -1))) >= 0:
        left["n_predict"] = limit - tokens
        if left["n_predict"] <= 0:
            raise CannotContinue("all its tokens are used up")
    if sampling.has_seed(params):
        left["seed"] = later_seed(params["seed"], tokens)
    whole = [*messages, answer]
    more = {**options, "continue_final_message": True}
    try:
        prompt = await upstream.render(whole, more)
    except RequestError as error:
        if error.code in BLAMED:
            raise
        raise CannotContinue(f"the chat template refuses it: {error.message}") from None
    reasoning, text = answer.get("reasoning_content", ""), answer["content"]
    if not prompt.endswith(text or reasoning) or reasoning.strip() not in prompt:
        raise CannotContinue("the chat template does not end with the answer so far")
    return Prefill(whole, more, left, tokens)


def check(
    messages: Sequence[dict[str, Any]], params: Mapping[str, Any], parts: Iterable[Part]
) -> None:
    """Return if an answer may be one that `prefill` continues, as far as is known without asking.

    Raises:
        CannotContinue: it is not.
    """
    if messages and messages[-1]["role"] == "assistant":
        raise CannotContinue("the chat itself ends within an answer")
    if params.get("grammar") or params.get("json_schema") is not None:
        raise CannotContinue("where a chat's grammar stands is known to its upstream alone")
    if any(part.channel.kind == TOOL_CALL for part in parts):
        raise CannotContinue("a tool call has begun")
    check_state(params)


def _answer(pieces: Sequence[str], parts: Iterable[Part]) -> dict[str, Any]:
    """The answer so far as a message.

    Raises:
        CannotContinue: it is none that could go on.
    """
    if not pieces[-1]:
        raise CannotContinue("it was cut within what may have become something else")
    found = {REASONING: "", TEXT: ""}
    for first, behind, channel in parts:
        said = "".join(pieces[first:behind])
        if said and channel.kind == REASONING and found[TEXT]:
            raise CannotContinue("it reasons again behind its text")
        found[channel.kind] += said
    message = {"role": "assistant", "content": found[TEXT]}
    return message | ({"reasoning_content": found[REASONING]} if found[REASONING] else {})
