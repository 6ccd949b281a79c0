#!/usr/bin/env python3
"""Attack a server with schemas and grammars: none may come back unconstrained, or end the engine.

Each attack is made of a seed, and good ones are among them. The exit code is 1 where an answer came
back that breaks its constraint, where an error is none of those that belong here, where nothing was
kept, or where the server does not answer at the end.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLE = """\
example:
  python tools/constraint_attack.py --seconds 600 --model model.gguf
"""
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net import sync
from llcuda_net.cli.common import Parser
from llcuda_net.errors import InvalidRequest, LlcudaError, RequestError
from llcuda_net.upstream.constraints.checks import breach
from llcuda_net.util.terminal import echo

_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object", "strin")
_PATTERNS = ("^a+$", "a|b", "^(?=a)b", "(a*)*b", "[", "^[0-9]{3}$", "\\d+", "^(a|aa)+$", "\\1")
_REFS = ("#", "#/$defs/a", "#/nope", "http://127.0.0.1:9/x.json", "file:///etc/passwd", "#a")
_FORMATS = ("date", "email", "password", "ipv4", "uuid", "nope", "date-time")
_CHARACTERS = 'abc "[]()|*+?{}0123,\\-^.<>!#:=\n'


def attacks(rng: random.Random, count: int) -> Iterator[tuple[str, Any]]:
    """Constraints by their parameter's name."""
    for _ in range(count):
        if rng.random() < 0.5:
            yield "json_schema", _schema(rng, 3)
        else:
            yield "grammar", _grammar(rng)


def _schema(rng: random.Random, depth: int) -> dict[str, Any]:
    def inner() -> dict[str, Any]:
        return _schema(rng, depth - 1) if depth else {"type": rng.choice(_TYPES[:5])}

    small = rng.randrange(5)
    keywords: dict[str, Any] = {
        "uniqueItems": True,
        "items": inner,
        "prefixItems": lambda: [inner()],
        "minItems": small,
        "maxItems": rng.randrange(4),
        "contains": inner,
        "properties": lambda: {name: inner() for name in "ab"},
        "required": ["a"],
        "additionalProperties": rng.choice([True, False]),
        "patternProperties": lambda: {rng.choice(_PATTERNS): inner()},
        "propertyNames": {"maxLength": 3},
        "dependentRequired": {"a": ["b"]},
        "minimum": small,
        "exclusiveMaximum": rng.randrange(9),
        "multipleOf": rng.choice([1, 7, 0.5, 0]),
        "pattern": rng.choice(_PATTERNS),
        "minLength": small,
        "maxLength": rng.randrange(6),
        "format": rng.choice(_FORMATS),
        "enum": rng.choice([[], [1, "a"], [None], [1.5, [1]]]),
        "const": rng.choice([1, "a", None, {"a": 1}]),
        "not": inner,
        "if": inner,
        "then": inner,
        "oneOf": lambda: [inner(), inner()],
        "anyOf": lambda: [inner(), inner()],
        "allOf": lambda: [inner(), inner()],
        "$ref": rng.choice(_REFS),
        "x-guidance": rng.choice([{"lenient": False}, {"nope": 1}, 5]),
    }
    found: dict[str, Any] = {}
    if rng.random() < 0.7:
        found["type"] = rng.choice(_TYPES)
    if rng.random() < 0.2:
        found["$defs"] = {"a": {"type": rng.choice(_TYPES)}}
    for name in rng.sample(list(keywords), rng.randrange(4)):
        value = keywords[name]
        found[name] = value() if callable(value) else value
    return found


def _grammar(rng: random.Random) -> str:
    def term(depth: int) -> str:
        kind = rng.randrange(8 if depth else 4)
        if kind == 0:
            return json.dumps("".join(rng.choices("abc ", k=rng.randrange(4))))
        if kind == 1:
            return rng.choice(["[a-c]", "[^a]", "[z-a]", "[]", "[^]", ".", "[a-]", "[\\x00-\\xff]"])
        if kind == 2:
            return rng.choice(["a", "b", "root", "nope"])
        if kind == 3:
            return rng.choice(["<[5]>", "!<[5]>", "<nope>", '"\\q"', '"é"'])
        body = " ".join(term(depth - 1) for _ in range(rng.randrange(1, 4)))
        if kind == 4:
            return f"({body} | {term(depth - 1)})"
        return f"({body})" + rng.choice(["*", "+", "?", "{2}", "{3,1}", "{0,3}", "{2,}", "{9999}"])

    rules = [
        f"{name} ::= " + " ".join(term(2) for _ in range(rng.randrange(1, 4)))
        for name in ["root", "a", "b"]
    ]
    text = "\n".join(rules)
    if rng.random() < 0.3:  # damaged
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(_CHARACTERS) + text[at + 1 :]
    return text


@contextlib.contextmanager
def _server(model: str | None) -> Iterator[str]:
    """The address of a server with the built-in engine."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "llcuda_net.cli.server", "--port", "0"]
        command += ["--data-dir", f"{folder}/data", "--log-level", "error"]
        command += ["--model", model] if model else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rpartition(" ")[2].strip()
        finally:
            process.terminate()
            process.wait()


def main() -> int:
    """Attack until the time is over; the exit code."""
    parser = Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "--model", help="GGUF file of the engine (default: the demonstration model)"
    )
    parser.add_argument("--server", help="HOST:PORT of one that runs, in place of an own one")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the attacks (default: 1)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        server = arguments.server or stack.enter_context(_server(arguments.model))
        return _attack(server, arguments.seconds, arguments.seed)


def _attack(server: str, seconds: float, seed: int) -> int:
    seen: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with sync.connect(server) as client:
        for number, (kind, constraint) in enumerate(attacks(random.Random(seed), 10**9)):
            if time.monotonic() > end:
                break
            params = {kind: constraint}
            try:
                found = client.complete("one", n_predict=24, seed=number, **params)
            except InvalidRequest:
                seen["refused"] += 1
                continue
            except RequestError as error:
                what = "broken" if "does not keep" in str(error) else "failed"
                seen[what] += 1
                if what == "failed":
                    echo(f"{error}: {json.dumps(params)}")
                continue
            why = breach(kind, constraint, found.text, found.reason == "length")
            seen["kept" if why is None else "unconstrained"] += 1
            if why is not None:
                echo(f"{why}: {found.text!r}: {json.dumps(params)}")
        try:
            client.complete("one", n_predict=2)
        except LlcudaError as error:
            echo(f"the server does not answer any more: {error}")
            return 1
    echo(", ".join(f"{count} {name}" for name, count in seen.most_common()))
    return 1 if seen["unconstrained"] or seen["failed"] or not seen["kept"] else 0


if __name__ == "__main__":
    sys.exit(main())
