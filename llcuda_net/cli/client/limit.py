"""The token limit of an answer for which none was given.

A model in a loop would otherwise answer until its context is full, for minutes. The command sets
this limit, and says so when it cuts; the Python client sets none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llcuda_net.cli import common
from llcuda_net.cli.common import DEFAULT_TOKENS, UNLIMITED
from llcuda_net.errors import InvalidRequest

if TYPE_CHECKING:
    from llcuda_net.client.events import Result
    from llcuda_net.sync import Client, Stream


def generate(client: Client, request: dict[str, Any], **details: Any) -> Stream:
    """Start a generation, with the default limit where the request has none.

    Raises:
        what `Client.generate` raises.
    """
    request = {**request, **details}
    given = request.pop("n_predict", None)
    if given == UNLIMITED:
        return client.generate(**request)
    if given is not None:
        return client.generate(n_predict=given, **request)
    try:
        return client.generate(n_predict=DEFAULT_TOKENS, **request)
    except InvalidRequest:
        # Most likely the model's context is smaller, and then it is the limit. Whatever else is
        # wrong is refused again.
        return client.generate(**request)


def cut_line(request: dict[str, Any] | None, result: Result, *, chat: bool = False) -> str | None:
    """What to say of an answer that was cut by a limit its reader did not give; None of others.

    Where the model was still thinking nothing is printed, so a limit that was given is told, too.

    Args:
        request: as `generate` took it; None where another command made it.
        chat: whether the reader can ask the model to go on.
    """
    if result.reason != "length":
        return None
    if request is None:
        return "the answer was cut where its request's token limit was, or the context was full"
    tokens = result.usage.get("completion_tokens", DEFAULT_TOKENS)
    given = request.get("n_predict")
    thinking = result.reasoning and not (result.text or result.tool_calls)
    if given not in (None, UNLIMITED) and thinking:
        cut = f"the model was still thinking after {tokens:,} token{'' if tokens == 1 else 's'}"
        return f"{cut}; for an answer, give it more with --max-tokens N"
    go_on = "ask it to go on, or start again with" if chat else "for more, ask again with"
    return common.cut_line(given, tokens, go_on)
