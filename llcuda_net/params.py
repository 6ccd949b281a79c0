"""Sampling parameters, by llama-server's names: which exist, and what values make sense.

What is passed on is exactly what the user gave; what is not in the table is refused by name, since
llama-server itself drops unknown names in silence. Names and ranges follow llama.cpp's
tools/server/README.md, "POST /completion".
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from llcuda_net.errors import RequestError
from llcuda_protocol import ErrorCode

_INT32 = (1 << 31) - 1
#: Most alternatives a token's log-probabilities may list.
MAX_PROBS = 1024

Check = Callable[[Any], str | None]


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not int:
            return "must be a whole number"
        return None if low <= value <= high else f"must be {low} to {high}"

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> str | None:
        if type(value) not in (int, float):
            return "must be a number"
        return None if low <= value <= high else f"must be {low:g} to {high:g}"

    return check


def _boolean(value: Any) -> str | None:
    return None if type(value) is bool else "must be true or false"


def _string(value: Any) -> str | None:
    return None if type(value) is str else "must be a string"


def _strings(value: Any) -> str | None:
    if type(value) is str:
        return None if value else "must not be empty"
    if type(value) is list and len(value) <= 64 and all(type(s) is str and s for s in value):
        return None
    return "must be a string, or a list of at most 64 strings, none of them empty"


def _mapping(value: Any) -> str | None:
    return None if type(value) is dict else "must be a JSON object"


def _list(value: Any) -> str | None:
    return None if type(value) is list else "must be a list"


def _logit_bias(value: Any) -> str | None:
    return None if type(value) in (list, dict) else "must be a list of pairs or an object"


def _samplers(value: Any) -> str | None:
    if type(value) is str or (type(value) is list and all(type(s) is str for s in value)):
        return None
    return "must be a list of sampler names"


#: Every parameter that a request may carry.
PARAMETERS: dict[str, Check] = {
    "n_predict": _integer(1, _INT32),
    "temperature": _number(0, 100),
    "dynatemp_range": _number(0, 100),
    "dynatemp_exponent": _number(0, 100),
    "top_k": _integer(-1, _INT32),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "top_n_sigma": _number(-1, 100),
    "xtc_probability": _number(0, 1),
    "xtc_threshold": _number(0, 1),
    "typical_p": _number(0, 1),
    "repeat_last_n": _integer(-1, _INT32),
    "repeat_penalty": _number(0, 100),
    "presence_penalty": _number(-100, 100),
    "frequency_penalty": _number(-100, 100),
    "dry_multiplier": _number(0, 100),
    "dry_base": _number(0, 100),
    "dry_allowed_length": _integer(0, _INT32),
    "dry_penalty_last_n": _integer(-1, _INT32),
    "dry_sequence_breakers": _strings,
    "mirostat": _integer(0, 2),
    "mirostat_tau": _number(0, 100),
    "mirostat_eta": _number(0, 100),
    "seed": _integer(-1, (1 << 32) - 1),
    "stop": _strings,
    "grammar": _string,
    "json_schema": _mapping,
    "logit_bias": _logit_bias,
    "ignore_eos": _boolean,
    "samplers": _samplers,
    "n_keep": _integer(-1, _INT32),
    "n_indent": _integer(0, _INT32),
    "n_probs": _integer(0, MAX_PROBS),
    "min_keep": _integer(0, _INT32),
    "post_sampling_probs": _boolean,
    "t_max_predict_ms": _integer(0, _INT32),
    "cache_prompt": _boolean,
    "lora": _list,
}


def check(params: Mapping[str, Any], context: int | None) -> dict[str, Any]:
    """The parameters ready to be passed on.

    Args:
        params: as the client sent them.
        context: tokens that a slot of the upstream holds; None if that is not known.

    Raises:
        RequestError: a name is unknown, or a value is not one that the parameter can have.
    """
    for name, value in params.items():
        rule = PARAMETERS.get(name)
        if rule is None:
            raise RequestError(ErrorCode.UNKNOWN_PARAMETER, _unknown(name))
        wrong = rule(value)
        if wrong is not None:
            raise RequestError(ErrorCode.INVALID_REQUEST, f"{name} {wrong}, not {_short(value)}")
    if "grammar" in params and "json_schema" in params:
        raise RequestError(ErrorCode.INVALID_REQUEST, "give grammar or json_schema, not both")
    n_predict = params.get("n_predict")
    if context is not None and n_predict is not None and n_predict > context:
        raise RequestError(
            ErrorCode.INVALID_REQUEST,
            f"n_predict must be 1 to {context}, the context of this model, not {n_predict}",
        )
    checked = dict(params)
    if n_predict is None and context is not None:
        checked["n_predict"] = context  # bounds the token log; the model mostly stops before
    if type(checked.get("stop")) is str:
        checked["stop"] = [checked["stop"]]
    return checked


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, PARAMETERS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no parameter {_short(name)}{hint}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
