"""Sampling parameters, by llama-server's names: which exist, and what values make sense.

What is passed on is exactly what the user gave; what is not in the table is refused by name, since
llama-server itself drops unknown names in silence. Names and ranges follow llama.cpp's
tools/server/README.md, "POST /completion". What a grammar or JSON schema says is for constraints/.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from llcuda_net.errors import InvalidRequest, UnknownParameter
from llcuda_net.upstream.constraints.size import schema_fault

_INT32 = (1 << 31) - 1
_FLOAT32 = 3.4e38
#: Above every count of tokens that can be meant; llama.cpp takes memory for some of them.
_MANY = 1 << 20
#: Longest grammar, in bytes.
MAX_GRAMMAR = 64 << 10
#: What llama.cpp calls its samplers: by name in a list, by letter in a string.
_SAMPLERS = {
    "penalties": "e",
    "dry": "d",
    "top_n_sigma": "s",
    "top_k": "k",
    "typ_p": "y",
    "top_p": "p",
    "min_p": "m",
    "xtc": "x",
    "temperature": "t",
    "infill": "i",
    "adaptive_p": "a",
}
#: Parameters that the context bounds, with the least value of each.
_UP_TO_CONTEXT = {"n_predict": 1, "repeat_last_n": -1, "dry_penalty_last_n": -1}
#: Seeds are from 0 up to this one, which is llama.cpp's LLAMA_DEFAULT_SEED: draw one at random.
SEEDS = (1 << 32) - 1
#: Most alternatives a token's log-probabilities may list.
MAX_PROBS = 1024

Check = Callable[[Any], str | None]


class _Range:
    """Checks that a value is a number in a range, ends included."""

    def __init__(self, low: float, high: float, *, whole: bool) -> None:
        self._low, self._high = low, high
        self._types: tuple[type, ...] = (int,) if whole else (int, float)
        self._kind = "a whole number" if whole else "a number"
        self._told = f"{low} to {high}" if whole else f"{low:g} to {high:g}"

    def __call__(self, value: Any) -> str | None:
        if type(value) not in self._types:
            return f"must be {self._kind}"
        return None if self._low <= value <= self._high else f"must be {self._told}"

    @property
    def schema(self) -> dict[str, Any]:
        """The same in JSON Schema; null is as if it were not there."""
        kind = "number" if float in self._types else "integer"
        return {"type": [kind, "null"], "minimum": self._low, "maximum": self._high}


def _integer(low: int, high: int) -> _Range:
    return _Range(low, high, whole=True)


def _number(low: float, high: float) -> _Range:
    return _Range(low, high, whole=False)


def _boolean(value: Any) -> str | None:
    return None if type(value) is bool else "must be true or false"


def _strings(value: Any) -> str | None:
    if type(value) is str:
        return None if value else "must not be empty"
    if type(value) is list and len(value) <= 64 and all(type(s) is str and s for s in value):
        return None
    return "must be a string, or a list of at most 64 strings, none of them empty"


def _text(value: Any) -> str | None:
    return None if type(value) is str else "must be a string"


def _grammar(value: Any) -> str | None:
    if type(value) is not str:
        return "must be a string"
    if len(value) > MAX_GRAMMAR or len(value.encode()) > MAX_GRAMMAR:
        return f"must be at most {MAX_GRAMMAR} bytes long"
    return None


def _lora(value: Any) -> str | None:
    def good(entry: Any) -> bool:
        return (
            type(entry) is dict
            and entry.keys() == {"id", "scale"}
            and _integer(0, _INT32)(entry["id"]) is None
            and _number(-_FLOAT32, _FLOAT32)(entry["scale"]) is None
        )

    if type(value) is list and all(map(good, value)):
        return None
    return 'must be a list of objects such as {"id": 0, "scale": 1.0}'


def _logit_bias(value: Any) -> str | None:
    def good(token: Any, bias: Any) -> bool:
        known = type(token) is str or _integer(0, _INT32)(token) is None
        return known and (bias is False or _number(-_FLOAT32, _FLOAT32)(bias) is None)

    if type(value) is dict and all(good(*entry) for entry in value.items()):
        return None
    pairs = type(value) is list and all(type(e) is list and len(e) == 2 for e in value)
    if pairs and all(good(*entry) for entry in value):
        return None
    return "must be a list of pairs, or an object, of token (id or text) and bias (number or false)"


def _samplers(value: Any) -> str | None:
    known = {type(s) is str and s in _SAMPLERS for s in value} if type(value) is list else {False}
    if known <= {True} or (type(value) is str and set(value) <= set(_SAMPLERS.values())):
        return None
    return f"must be a list of names among {', '.join(_SAMPLERS)}"


#: Every parameter that a request may carry.
PARAMETERS: dict[str, Check] = {
    "n_predict": _integer(1, _INT32),
    "temperature": _number(0, 100),
    "dynatemp_range": _number(0, 100),
    "dynatemp_exponent": _number(0, 100),
    "top_k": _integer(-1, _MANY),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "top_n_sigma": _number(-1, 100),
    "xtc_probability": _number(0, 1),
    "xtc_threshold": _number(0, 1),
    "typical_p": _number(0, 1),
    "repeat_last_n": _integer(-1, _MANY),
    "repeat_penalty": _number(0, 100),
    "presence_penalty": _number(-100, 100),
    "frequency_penalty": _number(-100, 100),
    "dry_multiplier": _number(0, 100),
    "dry_base": _number(0, 100),
    "dry_allowed_length": _integer(0, _MANY),
    "dry_penalty_last_n": _integer(-1, _MANY),
    "dry_sequence_breakers": _strings,
    "mirostat": _integer(0, 2),
    "mirostat_tau": _number(0, 100),
    "mirostat_eta": _number(0, 100),
    "seed": _integer(-1, (1 << 32) - 1),
    "stop": _strings,
    "grammar": _grammar,
    "json_schema": schema_fault,
    "logit_bias": _logit_bias,
    "ignore_eos": _boolean,
    "samplers": _samplers,
    "n_keep": _integer(-1, _MANY),
    "n_indent": _integer(0, _MANY),
    "n_probs": _integer(0, MAX_PROBS),
    "min_keep": _integer(0, _MANY),
    "post_sampling_probs": _boolean,
    "t_max_predict_ms": _integer(0, _INT32),
    "cache_prompt": _boolean,
    "lora": _lora,
    # What stands behind the answer, which is to fit in between: of /infill.
    "input_suffix": _text,
}
_TYPES: dict[Check, list[str]] = {
    _boolean: ["boolean", "null"],
    _strings: ["string", "array", "null"],
    _grammar: ["string", "null"],
    _text: ["string", "null"],
    _lora: ["array", "null"],
    _logit_bias: ["object", "array", "null"],
    _samplers: ["string", "array", "null"],
}


def schema_of(name: str) -> dict[str, Any]:
    """What a parameter may be, in JSON Schema, as far as that can say it."""
    rule = PARAMETERS[name]
    if isinstance(rule, _Range):
        return rule.schema
    return {"type": _TYPES[rule]} if rule in _TYPES else {}


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
            raise UnknownParameter(_unknown(name))
        wrong = rule(value)
        if wrong is not None:
            raise InvalidRequest(f"{name} {wrong}, not {_short(value)}")
    if "grammar" in params and "json_schema" in params:
        raise InvalidRequest("give grammar or json_schema, not both")
    for name, least in _UP_TO_CONTEXT.items():
        if context is not None and params.get(name, least) > context:
            raise InvalidRequest(
                f"{name} must be {least} to {context}, the context of this model, "
                f"not {params[name]}",
            )
    checked = dict(params)
    if "n_predict" not in params and context is not None:
        checked["n_predict"] = context  # bounds the token log; the model mostly stops before
    if type(checked.get("stop")) is str:
        checked["stop"] = [checked["stop"]]
    return checked


def within(params: Mapping[str, Any], context: int) -> dict[str, Any]:
    """Checked parameters for an upstream whose context may be smaller than the one before."""
    return {
        name: min(value, context) if name in _UP_TO_CONTEXT else value
        for name, value in params.items()
    }


def is_deterministic(params: Mapping[str, Any]) -> bool:
    """Whether the same request to the same model is meant to have the same answer."""
    if params.get("t_max_predict_ms"):
        return False
    return params.get("temperature") == 0 or has_seed(params)


def has_seed(params: Mapping[str, Any]) -> bool:
    """Whether they name a seed, and none for which llama.cpp draws one at random."""
    return params.get("seed") not in (None, -1, SEEDS)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, PARAMETERS, n=1) if len(name) <= 64 else []
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no parameter {_short(name)}{hint}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "one so deep"
    return text if len(text) <= 60 else text[:57] + "..."
