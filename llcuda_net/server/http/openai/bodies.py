"""What the bodies of several APIs have in common: structs, sampling parameters, schemas, tools."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from msgspec import Meta

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.errors import HttpError

#: Most alternatives of a token, by OpenAI's parameter; llama-server's n_probs takes more.
MAX_TOP_LOGPROBS = 20
#: Seeds that are none of llama.cpp's special ones; larger ones are folded into them.
_SEEDS = (1 << 32) - 1

_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Key = Annotated[str, Meta(max_length=64)]
_Text = Annotated[str, Meta(max_length=512)]
#: What a client keeps with something of its own: texts by name.
Metadata = Annotated[dict[_Key, _Text], Meta(max_length=16)]
_T = TypeVar("_T")
_PATH = re.compile(r"^(.*) - at `\$\.?([^`]*)`$", re.DOTALL)


class FunctionDefinition(msgspec.Struct):
    """What a model may call; `parameters` is a JSON schema."""

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Options(Protocol):
    """The fields of a body that a chat's template takes."""

    parallel_tool_calls: bool | None
    chat_template_kwargs: dict[str, Any] | None


def wrong(param: str | None, message: str) -> HttpError:
    """A field that has a value that it cannot have."""
    return HttpError(400, message, param=param, code="invalid_request")


def convert(value: Any, type_: type[_T], at: str = "") -> _T:
    """A JSON value as a struct.

    Args:
        at: the path of the value.

    Raises:
        HttpError: it is none; its param is the path of the field at fault.
    """
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _PATH.match(text)
        what, param = (found[1], found[2] or None) if found else (text, None)
        missing = re.search(r"missing required field `([^`]+)`", what)
        if missing is not None:
            param = f"{param}.{missing[1]}" if param else missing[1]
            what = "it is missing"
        if at:
            param = f"{at}.{param}" if param else at
        what = what.replace(" | null`", "`")
        message = f"{param}: {what}" if param else what
        raise wrong(param, message) from None


def body_of(
    kept: Mapping[str, Any], type_: type[_T], names: Collection[str]
) -> tuple[_T, dict[str, Any]]:
    """A body as a struct, and the sampling parameters that come beside its fields.

    Args:
        kept: the fields that are followed.
        names: of those that are sampling parameters, by llama-server's names.

    Raises:
        HttpError: as `convert`.
    """
    fields: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in kept.items():
        is_whole = type(value) is float and value.is_integer()  # some languages have one kind only
        (own if name in names else fields)[name] = int(value) if is_whole else value
    return convert(fields, type_), own


# -- sampling ---------------------------------------------------------------------------------


def sampling_of(
    body: msgspec.Struct, own: Mapping[str, Any], limits: Sequence[str]
) -> dict[str, Any]:
    """The sampling parameters of a body by llama-server's names.

    Args:
        body: has OpenAI's fields, or some of them.
        own: those that have llama-server's names already.
        limits: fields of the body that say how many tokens to make; the last one counts.

    Raises:
        HttpError: one cannot have its value.
    """
    params: dict[str, Any] = {}
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "stop"):
        value = getattr(body, name, None)
        if value is not None and value != []:
            params[name] = checked(name, name, value)
    for name in ("n_predict", *limits):
        value = own.get(name) if name == "n_predict" else getattr(body, name)
        if value is not None and value != -1:
            params["n_predict"] = checked(name, "n_predict", value)
    for name, value in own.items():
        if name == "logit_bias":
            params[name] = _logit_bias(value)
        elif name != "n_predict":
            params[name] = checked(name, name, value)
    if bias := getattr(body, "logit_bias", None):
        params["logit_bias"] = _logit_bias(bias)
    return params


def checked(field: str, name: str, value: Any) -> Any:
    """The value of a parameter, by the name that the client has for it.

    Raises:
        HttpError: it cannot have this value.
    """
    why = PARAMETERS[name](value)
    if why is not None:
        raise wrong(field, f"{field} {why}")
    return value


def _logit_bias(bias: Any) -> Any:
    """Pairs of token id and bias where all tokens are ids, as they are in OpenAI's API."""
    if type(bias) is dict and all(key.isascii() and key.isdigit() for key in bias):
        for key, value in bias.items():
            if type(value) not in (int, float) or not -100 <= value <= 100:
                raise wrong(f"logit_bias.{key}", f"logit_bias.{key} must be a number, -100 to 100")
        return checked("logit_bias", "logit_bias", [[int(k), v] for k, v in bias.items()])
    return checked("logit_bias", "logit_bias", bias)


def seeds_of(seed: int | None, count: int) -> list[int | None]:
    """The seed of each choice: of several, each has one more than the one before."""
    if seed is None or seed == -1:
        return [None] * count
    return [(seed + i) % _SEEDS for i in range(count)]


def constrain(params: dict[str, Any], field: str, schema: dict[str, Any]) -> None:
    """Add to sampling parameters that the answer must follow a schema.

    Args:
        field: where the client has it.

    Raises:
        HttpError: the answer has to follow something else already, or it is no schema.
    """
    if "json_schema" in params or "grammar" in params:
        raise wrong(field, f"give {field}, json_schema or grammar: one of them")
    why = PARAMETERS["json_schema"](schema)
    if why is not None:
        raise wrong(field, f"the schema in {field} {why}")
    if schema and "x-guidance" not in schema:
        # JSON without white space, where the upstream has llguidance; others ignore it. Small
        # models may go on with line breaks for ever, where they are allowed.
        schema = {**schema, "x-guidance": {"whitespace_flexible": False}}
    params["json_schema"] = schema


def logprobs_of(
    params: dict[str, Any], top: int | None, *, wanted: bool, switch: str
) -> int | None:
    """How many alternatives of each token are to be written; None: none, and no tokens.

    Args:
        params: get what llama-server needs for that.
        top: how many the body asks for, in top_logprobs.
        wanted: whether it asks for log-probabilities at all.
        switch: the field, and its value, that would.

    Raises:
        HttpError: what it asks for does not go together.
    """
    if top and not wanted:
        raise wrong("top_logprobs", f"top_logprobs needs {switch}")
    if not wanted:
        own: int | None = params.get("n_probs")
        return own or None
    if "n_probs" in params:
        raise wrong("n_probs", "give top_logprobs, or n_probs")
    params["n_probs"] = max(1, top or 0)  # llama-server has none without alternatives
    return top or 0


# -- the options of a chat --------------------------------------------------------------------


def options_of(
    body: Options, tools: list[dict[str, Any]], choice: Any, effort: str | None
) -> dict[str, Any] | None:
    """As of llcuda_protocol.Generate.chat.

    Args:
        tools, choice: as a chat has them.

    Raises:
        HttpError: a tool is to be called, and there is none.
    """
    options: dict[str, Any] = {}
    if tools:
        options["tools"] = tools
        if choice is not None:
            options["tool_choice"] = choice
        if body.parallel_tool_calls is not None:
            options["parallel_tool_calls"] = body.parallel_tool_calls
    elif choice not in (None, "none", "auto"):
        raise wrong(
            "tool_choice", "tool_choice asks for a tool, and there are no tools that are functions"
        )
    if effort is not None:
        options["reasoning_effort"] = effort
    if body.chat_template_kwargs:
        options["chat_template_kwargs"] = body.chat_template_kwargs
    return options or None


def tools_of(functions: Iterable[FunctionDefinition], at: str) -> list[dict[str, Any]]:
    """Functions as a chat has its tools.

    Args:
        at: the path of one's name in the body, with {} for its number.

    Raises:
        HttpError: two have one name.
    """
    found = []
    names: set[str] = set()
    for i, function in enumerate(functions):
        if function.name in names:
            raise wrong(at.format(i), f"{at.format(i)}: there are two tools {function.name!r}")
        names.add(function.name)
        known = {
            name: value
            for name in FunctionDefinition.__struct_fields__
            if (value := getattr(function, name)) is not None
        }
        found.append({"type": "function", "function": known})
    return found


def check_choice(names: Collection[str], tools: Sequence[dict[str, Any]]) -> None:
    """Refuse a choice of tools that there are not.

    Args:
        names: of the functions that may, or must, be called.

    Raises:
        HttpError: one of them is not there, or there are none.
    """
    known = {tool["function"]["name"] for tool in tools}
    for name in names:
        if name not in known:
            raise wrong("tool_choice", f"tool_choice names {name[:64]!r}, which is no tool here")
    if not names:
        raise wrong("tool_choice", "tool_choice allows no tool that is a function: use none")
