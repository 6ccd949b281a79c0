"""The one text of a JSON value, and a digest over it.

By RFC 8785 (JSON Canonicalization Scheme): keys in the order of their UTF-16 code units, no space,
numbers as ECMAScript writes them. Any language that has JSON can compute the same.

The digest shows that a document was cut off or changed by accident or by hand. It is no signature:
whoever wants to deceive computes it again.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

#: The document's own member that holds the digest of all others.
DIGEST = "digest"
#: From this on ECMAScript writes an exponent.
_LARGE = 21
_SMALL = -6


def canonical(value: Any) -> bytes:
    """The bytes that stand for a value.

    Raises:
        ValueError: a number is none, or a string is no Unicode text.
    """
    try:
        return _text(value).encode()
    except UnicodeEncodeError:
        raise ValueError("a string has half a character in it") from None


def digest(document: dict[str, Any]) -> str:
    """SHA-256 in hexadecimal of a document without its digest.

    Raises:
        ValueError: see `canonical`.
    """
    rest = {name: value for name, value in document.items() if name != DIGEST}
    return hashlib.sha256(canonical(rest)).hexdigest()


def _text(value: Any) -> str:
    if value is None or isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(name)}:{_text(value[name])}" for name in names) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_text, value)) + "]"
    raise ValueError(f"{type(value).__name__} is no JSON")


def number(value: float) -> str:
    """A number as ECMAScript's Number::toString gives it (ECMA-262, 6.1.6.1.20).

    Raises:
        ValueError: it is infinite, or no number.
    """
    if isinstance(value, int) and abs(value) <= 1 << 53:
        return str(value)
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    if value == 0:
        return "0"
    # Python's shortest digits are the same; only how they are laid out differs.
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    point = len(whole) + int(exponent or 0)
    if whole == "0":
        point = int(exponent or 0) - (len(part) - len(part.lstrip("0")))
    digits = digits.rstrip("0")
    sign = "-" if value < 0 else ""
    if len(digits) <= point <= _LARGE:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= _LARGE:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _SMALL < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if power > 0 else '-'}{abs(power)}"
