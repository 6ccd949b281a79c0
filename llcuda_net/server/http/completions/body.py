"""The body of POST /v1/completions: its fields, and the requests that it becomes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llcuda_net.server.http.openai.bodies import body_of, sampling_of, seeds_of, wrong
from llcuda_net.server.http.openai.chat_body import SAMPLING, StreamOptions
from llcuda_net.server.http.openai.fields import Ignored

#: Most choices of all prompts together: the id of an event has a part for each.
MAX_CHOICES = 128
#: Most alternatives of a token.
MAX_LOGPROBS = 20

_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Id = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]


class CompletionBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/completions; llama-server's sampling parameters come beside it."""

    prompt: str | list[str | _Id | list[_Id]]
    model: Annotated[str, Meta(max_length=1024)] | None = None
    suffix: str | None = None
    max_tokens: Annotated[int, Meta(ge=-1, le=(1 << 31) - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Any] | list[Any] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


#: Fields that are followed, and what is to know of each. Beside them there are all parameters of
#: llama-server, by its names.
SUPPORTED = {
    "prompt": "a text, token ids, or a list of one of the two; a choice, or n, for each",
    "model": "as of a chat",
    "suffix": "what comes behind the gap that is to be filled, of a prompt that is text; the model "
    "must have been made for that",
    "max_tokens": "-1, or nothing: no limit but the context of the model",
    "n": f"choices of each prompt; with all prompts, up to {MAX_CHOICES}",
    "echo": "the prompt stands before the answer; not with logprobs, since llama-server has none "
    "of prompts",
    "stop": "a text, or up to 64",
    "seed": "choice number i of several gets seed + i; -1: a random one",
    "temperature": "0 to 100",
    "top_p": "0 to 1",
    "presence_penalty": "-2 to 2",
    "frequency_penalty": "-2 to 2",
    "logit_bias": "token ids with -100 to 100; llama-server's shapes, too",
    "logprobs": f"0 to {MAX_LOGPROBS} alternatives of each token",
    "stream": "server-sent events",
    "stream_options": "include_usage; include_obfuscation does nothing",
}
#: Sampling parameters by llama-server's names that are no fields of OpenAI's.
OWN = tuple(name for name in SAMPLING if name not in CompletionBody.__struct_fields__)
_KNOWN = (*CompletionBody.__struct_fields__, *OWN)


class Completion(msgspec.Struct):
    """A completion, ready for the gateway.

    Attributes:
        prompts: texts, or token ids.
        params: as of llcuda_protocol.Generate.
        seeds: of each choice of all prompts, in their order; None: the server's own.
        n: choices of each prompt.
        logprobs: how many alternatives of each token are to be written; None: no tokens.
    """

    prompts: list[str | list[int]]
    params: dict[str, Any]
    seeds: list[int | None]
    n: int
    model: str | None
    echo: bool
    stream: bool
    usage: bool
    logprobs: int | None


def read(data: dict[str, Any], ignored: Ignored) -> Completion:
    """The completion that a body asks for.

    Args:
        ignored: takes the names of what is ignored.

    Raises:
        HttpError: the body is wrong.
    """
    kept = ignored.keep(data, _KNOWN)
    if type(kept.get("stream_options")) is dict:
        members = StreamOptions.__struct_fields__
        kept["stream_options"] = ignored.keep(kept["stream_options"], members, "stream_options.")
    body, own = body_of(kept, CompletionBody, OWN)
    prompts, n = prompts_of(body), body.n or 1
    if len(prompts) * n > MAX_CHOICES:
        raise wrong("n", f"there are {len(prompts) * n} choices: at most {MAX_CHOICES} can be made")
    if body.echo and body.logprobs is not None:
        raise wrong("echo", "echo goes without logprobs: llama-server has none of prompts")
    return Completion(
        prompts,
        _params(body, own, prompts),
        seeds_of(body.seed, len(prompts) * n),
        n,
        body.model,
        bool(body.echo),
        bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage),
        body.logprobs,
    )


def prompts_of(body: CompletionBody) -> list[str | list[int]]:
    """All prompts of a body, each a text or token ids.

    Raises:
        HttpError: there is none, or an empty one.
    """
    given = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    kinds = {type(one) for one in given}
    if len(kinds) != 1:
        raise wrong("prompt", "prompt must be a text, token ids, or a list of one of the two")
    found: list[Any] = [given] if kinds == {int} else given
    for i, one in enumerate(found):
        if not one:
            raise wrong(
                "prompt", "the prompt is empty" if len(found) == 1 else f"prompt[{i}] is empty"
            )
    return found


def _params(
    body: CompletionBody, own: dict[str, Any], prompts: list[str | list[int]]
) -> dict[str, Any]:
    params = sampling_of(body, own, ("max_tokens",))
    if body.suffix:
        if not all(type(one) is str for one in prompts):
            raise wrong("suffix", "suffix goes with a prompt that is text")
        params["input_suffix"] = body.suffix
    if body.logprobs is not None:
        if "n_probs" in params:
            raise wrong("n_probs", "give logprobs or n_probs")
        params["n_probs"] = max(1, body.logprobs)  # llama-server has none without alternatives
    return params
