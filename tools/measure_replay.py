#!/usr/bin/env python3
"""How many answers go on, and how, when their upstream is lost: by feature, on a real model."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

import httpx
import trio

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.campaign.server import Server
from tools.proxy.cutter import Cutter, LlamaProcess

EXAMPLE = """\
example:
  python tools/measure_replay.py --llama-server llama-server --model SmolLM2.gguf --prompts 10

Two llama-servers with the model run behind one llcuda-server. Each request is sent three times,
with the same seed: twice in peace, and once while the connection to the upstream is cut, after a
random number of its events; then the other upstream takes over. That answer is equal to the first
one, or it came to its end and is another one, or it was interrupted. How often even the two answers
in peace differ, is said beside it.

exit codes: 0 it was measured, 1 a server failed, 2 usage, 130 interrupted
"""

SUBJECTS = (
    "pears", "the sea", "a long winter", "two friends", "bread", "the moon", "a small dog",
    "music", "an old bridge", "rain", "a lighthouse", "honey", "a train", "maps", "the forest",
    "a clock", "tea", "stones", "a garden", "wind",
)  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
    },
    "required": ["title", "words"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "note",
        "description": "Takes a note.",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string", "maxLength": 60}},
            "required": ["text"],
        },
    },
}
#: What each feature adds to a chat.
FEATURES: dict[str, dict[str, Any]] = {
    "temperature 0": {"temperature": 0},
    "temperature 0.8": {"temperature": 0.8},
    "penalties, stop strings": {"temperature": 0.8, "repeat_penalty": 1.2, "stop": ["\n\n\n"]},
    "log-probabilities": {"temperature": 0.8, "logprobs": True, "top_logprobs": 2},
    "grammar": {"temperature": 0.8, "grammar": 'root ::= ([a-z]+ " "){8,30} [a-z]+ "."'},
    "json_schema": {
        "temperature": 0.8,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": SCHEMA},
        },
    },
    "mirostat": {"temperature": 0.8, "mirostat": 2},
    "adaptive_p": {"temperature": 0.8, "samplers": ["top_k", "temperature", "adaptive_p"]},
    "tools": {"temperature": 0.8, "tools": [TOOL], "tool_choice": "required"},
    # Whatever its template makes of it: only the upstream can say.
    "template options": {"temperature": 0.8, "chat_template_kwargs": {"enable_thinking": False}},
}
#: Seconds for one answer.
PATIENCE = 600.0


@dataclass
class Shares:
    """What became of the answers of one feature whose upstream was lost."""

    counts: Counter[str] = field(default_factory=Counter)
    uncut: int = 0
    unsteady: int = 0
    reasons: list[str] = field(default_factory=list)

    def note(self, how: str) -> None:
        """One more."""
        self.counts[how] += 1


async def answer(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, str]:
    """What an answer says, or empty and why there is none."""
    response = await client.post("/v1/chat/completions", json=body, timeout=PATIENCE)
    found = response.json()
    if response.status_code != 200:
        return "", str(found["error"]["message"])
    message = found["choices"][0]["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return json.dumps([message.get("content"), calls]), ""


async def measure(
    arguments: argparse.Namespace, client: httpx.AsyncClient, cutter: Cutter
) -> dict[str, Shares]:
    """Ask for each answer twice."""
    rng = random.Random(arguments.seed)
    until = trio.current_time() + arguments.minutes * 60
    shares = {name: Shares() for name in arguments.features or FEATURES}
    for number in range(arguments.prompts):
        for name, found in shares.items():
            if trio.current_time() > until:
                break
            subject = SUBJECTS[number % len(SUBJECTS)]
            text = f"Write something about {subject}, story number {number}."
            body = {
                "messages": [{"role": "user", "content": text}],
                "max_tokens": arguments.tokens,
                "seed": arguments.seed + number,
                **FEATURES[name],
            }
            cutter.events = 0
            undisturbed, why = await answer(client, body)
            if why:
                found.reasons.append(f"in peace: {why}")
                continue
            cutter.events = 0
            again, _ = await answer(client, body)
            found.unsteady += again != undisturbed
            # Somewhere behind the first event, and before the last one.
            cutter.cut_after = rng.randint(1, max(1, cutter.events - 2))
            text, why = await answer(client, body)
            if cutter.cut_after:
                cutter.cut_after = 0
                found.uncut += 1
            elif why:
                found.note("interrupted" if "something else" in why else "failed")
                found.reasons.append(why)
            else:
                found.note("equal" if text == undisturbed else "finished")
                if text != undisturbed and arguments.differences:
                    found.reasons.append(f"{undisturbed} became {text}")
        echo(f"{number + 1} of {arguments.prompts}", file=sys.stderr, flush=True)
    return shares


async def run(arguments: argparse.Namespace) -> dict[str, Shares]:
    """Start everything, measure, stop everything."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nursery = await stack.enter_async_context(trio.open_nursery())
        cutter = Cutter()
        options = ["--drain-seconds", "1", "--durability", "process"]
        for name in "ab":
            upstream = LlamaProcess(arguments.llama_server, arguments.model, arguments.threads)
            await upstream.start(folder / f"{name}.log")
            stack.push_async_callback(upstream.end)
            port = await nursery.start(cutter.run, upstream.port)
            options += ["--upstream", f"http://127.0.0.1:{port}"]
        server = Server(folder / "data", options)
        await server.start()
        stack.push_async_callback(server.end)
        await server.ready()
        async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
            with trio.fail_after(PATIENCE):
                while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                    await trio.sleep(0.5)
            shares = await measure(arguments, client, cutter)
        nursery.cancel_scope.cancel()
    return shares


def table(shares: dict[str, Shares]) -> str:
    """The shares as text."""
    heads = ("cut", "equal", "other end", "interrupted", "failed", "unequal in peace")
    lines = [" " * 24 + "".join(f"{head:>{len(head) + 3}}" for head in heads)]
    for name, found in shares.items():
        n = found.counts
        counts = [n.total(), n["equal"], n["finished"], n["interrupted"], n["failed"]]
        cells = zip([*counts, found.unsteady], heads, strict=True)
        lines.append(f"{name:24}" + "".join(f"{n:{len(head) + 3}}" for n, head in cells))
        lines += [f"    {reason[:500]}" for reason in found.reasons]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--llama-server", required=True, metavar="FILE", help="its program")
    out.add_argument("--model", required=True, metavar="FILE", help="a GGUF file")
    out.add_argument("--prompts", type=int, default=10, help="(default %(default)s)")
    out.add_argument("--tokens", type=int, default=60, help="of each answer (default %(default)s)")
    out.add_argument("--minutes", type=float, default=60, help="at most (default %(default)s)")
    out.add_argument("--threads", type=int, default=1, help="of each llama-server")
    out.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    out.add_argument("--features", nargs="+", choices=FEATURES, help="default: all")
    out.add_argument("--differences", action="store_true", help="print answers that differ")
    out.add_argument("--json", metavar="FILE", help="write the counts there, too")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; its exit code."""
    arguments = parser().parse_args(argv)
    shares = trio.run(run, arguments)
    echo(table(shares))
    if arguments.json:
        counts = {
            name: {**found.counts, "unequal in peace": found.unsteady}
            for name, found in shares.items()
        }
        Path(arguments.json).write_text(json.dumps(counts, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
