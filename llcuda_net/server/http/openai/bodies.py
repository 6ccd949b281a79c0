"""What the bodies of several APIs have in common: structs, sampling parameters, schemas."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.errors import HttpError

#: Seeds that are none of llama.cpp's special ones; larger ones are folded into them.
_SEEDS = (1 << 32) - 1

_Key = Annotated[str, Meta(max_length=64)]
_Text = Annotated[str, Meta(max_length=512)]
#: What a client keeps with something of its own: texts by name.
Metadata = Annotated[dict[_Key, _Text], Meta(max_length=16)]
_T = TypeVar("_T")
_PATH = re.compile(r"^(.*) - at `\$\.?([^`]*)`$", re.DOTALL)


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
