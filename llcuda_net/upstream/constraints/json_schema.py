"""Whether a JSON schema can be kept, and whether a text keeps it.

What constrains the sampling is llguidance in the built-in engine, and a translation to GBNF in most
llama-servers. Neither knows every keyword: llguidance refuses a schema with one that it does not
know, and llama.cpp then samples freely, with no error; the translation leaves it out. So

- a schema that is wrong, whose references lead nowhere, or that cannot be compiled is refused;
- llguidance is told to leave out what it does not know (`checks.as_sent`), and
- every answer is checked against the whole schema by a validator.

The libraries are native code: see checks.py for where this runs.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema_rs
from llguidance import LLMatcher, LLTokenizer

from llcuda_net.upstream.constraints import gbnf
from llcuda_net.upstream.constraints.matcher import Match, Matcher

#: What people miss in the patterns that can be checked in bounded time.
_NO_REGEX = " that can be checked: look-around and back-references are not supported"
#: Largest compiled regular expression of a `pattern`, in bytes. These are matched in linear time.
_REGEX_BYTES = 10 << 20
_MOST_SHOWN = 200

#: Any JSON document, to see whether a text that was cut is the beginning of one.
_JSON = r"""
root ::= space (ROOT)
object ::= "{" space (pair ("," space pair)*)? "}" space
pair ::= string ":" space value
array ::= "[" space (value ("," space value)*)? "]" space
value ::= object | array | string | number | boolean | null
string ::= "\"" ([^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" space
number ::= integer ("." [0-9]+)? ([eE] [-+]? [0-9]+)? space
integer ::= "-"? ("0" | [1-9] [0-9]*)
boolean ::= ("true" | "false") space
null ::= "null" space
space ::= [ \t\r\n]*
"""
_TYPES = ("object", "array", "string", "number", "boolean", "null")


class SchemaError(ValueError):
    """The schema cannot be kept; the message says why."""


def check(schema: dict[str, Any]) -> None:
    """Return if a schema can be kept, as it is sent.

    Raises:
        SchemaError: it is no JSON schema, or it cannot be compiled.
    """
    _validator(schema)
    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
        matcher = LLMatcher(_bytes(), grammar, log_level=0)
    except ValueError as error:
        raise SchemaError(f"cannot be compiled: {_line(str(error))}") from None
    if matcher.is_error():
        raise SchemaError(f"cannot be compiled: {_line(matcher.get_error())}")
    matcher.compute_bitmask()
    if matcher.is_error():
        raise SchemaError("cannot be kept: no answer is of it, or it is too complex")


def check_readable(schema: dict[str, Any]) -> None:
    """Return if a schema is one, whether it can be kept or not; no answer is checked against it.

    Raises:
        SchemaError: it is wrong, or its references lead nowhere.
    """
    # Any `pattern` will do that some library can read: tools have what their authors were used to.
    _validator(schema, patterns=jsonschema_rs.FancyRegexOptions(size_limit=_REGEX_BYTES))


def broken_by(schema: dict[str, Any], text: str, *, cut: bool) -> str | None:
    """How a text breaks a schema; None where it does not.

    Args:
        cut: it is the beginning of an answer. Where more than space may follow, all that can be
            seen is whether it begins a JSON document of a type that the schema allows.
    """
    if cut:
        match = Matcher(_json_grammar(types_of(schema))).match(text)
        if match is Match.NO:
            return "it does not begin such a JSON document"
        if match is Match.BEGINNING or text[-1:].isdigit():  # a number may have more digits
            return None
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return f"it is not JSON: {_line(str(error))}"
    try:
        # Masked: an answer's text is for its reader only, not for logs and reports.
        found = next(iter(_validator(schema, "the value").iter_errors(value)), None)
    except ValueError as failure:  # nested more deeply than the validator goes
        return _line(str(failure))
    if found is None:
        return None
    where = "".join(f"[{step!r}]" for step in found.instance_path)
    return _line(f"at {where}: {found.message}" if where else found.message)


def types_of(schema: dict[str, Any]) -> frozenset[str]:
    """The types that a schema allows at its top, as far as it says so at once."""
    given = schema.get("type", list(_TYPES))
    names = [given] if isinstance(given, str) else given
    return frozenset("number" if name == "integer" else name for name in names) & set(_TYPES)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("it has a number that is too large")
    return value


def _no_reference(uri: str) -> NoReturn:
    raise ValueError(f"a reference may lead only into the schema itself, not to {uri}")


def _validator(
    schema: dict[str, Any],
    mask: str | None = None,
    patterns: jsonschema_rs.RegexOptions | jsonschema_rs.FancyRegexOptions | None = None,
) -> Any:
    """Raises SchemaError where there can be none."""
    try:
        # Nothing is fetched: neither from the network nor from files.
        return jsonschema_rs.validator_for(
            schema,
            retriever=_no_reference,
            validate_formats=True,
            ignore_unknown_formats=True,
            pattern_options=patterns or jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES),
            mask=mask,
        )
    except jsonschema_rs.ValidationError as error:
        where = "".join(f"[{step!r}]" for step in error.instance_path)
        hint = _NO_REGEX if error.message.endswith('not a "regex"') else ""
        raise SchemaError(
            f"is wrong{where and f' at {where}'}: {_line(error.message)}{hint}"
        ) from None
    except ValueError as error:
        raise SchemaError(f"is wrong: {_line(str(error))}") from None


@lru_cache(maxsize=1)
def _bytes() -> Any:
    return LLTokenizer("byte")


@lru_cache(maxsize=8)
def _json_grammar(types: frozenset[str]) -> gbnf.Grammar:
    return gbnf.parse(_JSON.replace("ROOT", " | ".join(sorted(types)) or "value"))


def _line(text: str) -> str:
    found = " ".join(text.split())
    return found if len(found) <= _MOST_SHOWN else found[: _MOST_SHOWN - 3] + "..."
