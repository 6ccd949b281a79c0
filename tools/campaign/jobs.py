"""The requests of the clients, each with its expected answer: computed, or recorded before.

The answer of the synthetic upstream depends on the prompt's ids alone, so it is known in advance,
piece by piece. The answers of the real engine are recorded first, with nothing going wrong; greedy
sampling repeats them.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llcuda_net.client import Client
from llcuda_net.client.stream import Piece
from llcuda_protocol import TokenLogprob, TopToken
from tools.synthetic.answer import Answer, Language, prompt_ids
from tools.synthetic.faults import in_prompt
from tools.synthetic.pages import apply_template
from tools.synthetic.tokens import detokenise

#: What a client does with a job, as shares of a hundred.
KINDS = {"read": 55, "detach": 15, "twice": 15, "cancel": 15}
#: Kinds of requests to the synthetic upstream, as shares of a hundred.
FLAVOURS = {"plain": 40, "probabilities": 20, "stop": 25, "ids": 5, "messages": 10}
#: The same, of those that a chat API can be asked.
CHATS = {"messages": 50, "probabilities": 20, "stop": 30}
#: Durability levels of requests; None: the server's default, disk.
LEVELS = (None, None, "process", "disk", "strict")
#: Fewest and most tokens of an answer.
SHORTEST, LONGEST = 8, 200


@dataclass(frozen=True, slots=True)
class Job:
    """One request with everything that must come of it.

    Attributes:
        kind: one of KINDS.
        flavour: one of FLAVOURS, or "engine".
        ask: the arguments of `Client.generate`.
        pieces: the whole answer.
        reason, stop: why it ends.
        tokens, prompt_tokens: the usage that the server must report.
        after: pieces after which a reader detaches or cancels.
        varied: the answer is another one each time, a token per piece; all its readers must get
            the same, and so must the store. `pieces` is empty.
    """

    kind: str
    flavour: str
    ask: dict[str, Any]
    pieces: tuple[Piece, ...]
    reason: str
    stop: str | None
    tokens: int
    prompt_tokens: int
    after: int = 0
    varied: bool = field(default=False, kw_only=True)

    @property
    def text(self) -> str:
        """The whole answer's text."""
        return "".join(piece.text for piece in self.pieces)


class Jobs(Protocol):
    """A source of jobs."""

    def draw(self, *, chat: bool = False) -> Job:
        """The next one; `chat`: one that can be asked of a chat API."""


def choose(rng: random.Random, table: dict[str, int]) -> str:
    """One of the names in a table, weighted by its numbers."""
    return rng.choices(list(table), list(table.values()))[0]


# -- the synthetic upstream's -------------------------------------------------------------------


class SyntheticJobs:
    """Jobs for the synthetic upstream.

    Args:
        rng: draws everything.
        kinds: what clients do, as KINDS.
        longest: most tokens of an answer.
    """

    def __init__(
        self, rng: random.Random, kinds: dict[str, int] | None = None, longest: int = LONGEST
    ) -> None:
        self._rng = rng
        self._kinds = kinds or KINDS
        self._longest = longest
        self._count = 0

    def draw(self, *, chat: bool = False) -> Job:
        """See Jobs."""
        rng = self._rng
        self._count += 1
        kind, flavour = choose(rng, self._kinds), choose(rng, CHATS if chat else FLAVOURS)
        # Log-uniform: as many answers in each order of magnitude.
        n_predict = int(SHORTEST * (self._longest / SHORTEST) ** rng.random())
        prompt = f"story {self._count}, {rng.random():.9f}"
        if rng.random() < 0.4:  # characters of four tokens, whose text comes with the last one
            prompt += f" [[split:{rng.randint(2, 8)}]]"
        params: dict[str, Any] = {"n_predict": n_predict, "temperature": 0}
        if flavour == "probabilities":
            params["n_probs"] = rng.randint(1, 4)
        what: dict[str, Any] = {"raw": prompt}
        asked: str | list[int] = prompt
        if flavour == "ids":
            asked = prompt_ids(prompt)
            what = {"prompt": asked}
        elif flavour == "messages" or chat:
            messages = [{"role": "user", "content": prompt}]
            what, asked = {"messages": messages}, apply_template(messages)
        if flavour == "stop":
            params["stop"] = _stops(rng, computed(asked, params)[0])
        pieces, reason, stop, tokens = computed(asked, params)
        ask = {**what, **params, "tokens": True, "level": rng.choice(LEVELS)}
        if kind == "detach":
            ask["on_disconnect"] = "continue"
        after = rng.randrange(len(pieces)) if pieces else 0
        return Job(kind, flavour, ask, pieces, reason, stop, tokens, len(prompt_ids(asked)), after)


def _stops(rng: random.Random, pieces: Sequence[Piece]) -> list[str]:
    """Stop strings that end the answer, and some that only begin in it: those hold pieces back."""
    text = "".join(piece.text for piece in pieces)
    out = []
    if rng.random() < 0.5:
        first = rng.randrange(len(text))
        out.append(text[first : first + rng.randint(2, 9)])
    for _ in range(rng.randint(1, 3)):  # these begin in the text, and never complete
        first = rng.randrange(len(text))
        out.append(text[first : first + rng.randint(1, 6)] + "!")
    return out


def computed(
    prompt: str | list[int], params: dict[str, Any]
) -> tuple[tuple[Piece, ...], str, str | None, int]:
    """The answer to a request: pieces, why it ends, stop string, number of tokens.

    It is the synthetic upstream's, and the text that the upstream holds back at the token limit,
    since it may have become a stop string: llcuda-server asks for that by its ids, where it has
    them all.
    """
    ids = prompt_ids(prompt)
    request = {**params, "stream": True, "return_tokens": True}
    answer = Answer(request, ids, Language(), in_prompt(detokenise(ids)))
    pieces: list[Piece] = []
    held: list[int] = []
    all_known, predicted = True, 0
    while not answer.done:
        chunk = answer.render(1)
        if not chunk:
            continue
        event = json.loads(chunk.partition(b"data: ")[2])
        found = event.get("completion_probabilities")
        if event["content"] or found:
            logprobs = [_logprob(entry) for entry in found] if found else None
            pieces.append(Piece(len(pieces), event["content"], event["tokens"][-1], logprobs))
            held, all_known = [], True
        else:
            held += event["tokens"]
            all_known = all_known and event["tokens_predicted"] == predicted + 1
        predicted = event["tokens_predicted"]
    if answer.stop_type == "limit" and held and all_known:
        pieces.append(Piece(len(pieces), detokenise(held), held[-1], None))
    reason = "length" if answer.stop_type == "limit" else "stop"
    return tuple(pieces), reason, answer.stopping_word or None, answer.total


def _logprob(entry: dict[str, Any]) -> TokenLogprob:
    top = tuple(TopToken(c["id"], bytes(c["bytes"]), c["logprob"]) for c in entry["top_logprobs"])
    return TokenLogprob(entry["id"], bytes(entry["bytes"]), entry["logprob"], top)


# -- the real engine's --------------------------------------------------------------------------

#: Questions that the demonstration model was trained on, so that it is certain, with long answers.
QUESTIONS = (
    "What is llcuda?",
    "What is a token?",
    "What is a slot?",
    "What is quantisation?",
    "What is the KV cache?",
    "What is CUDA?",
    "What is a generation?",
    "What is msgpack?",
    "What is TCP?",
    "What is backpressure?",
    "What is a llama-server?",
    "What is GGUF?",
)


@dataclass
class RecordedJobs:
    """Jobs for the engine: questions whose answers were recorded before."""

    rng: random.Random
    kinds: dict[str, int] = field(default_factory=lambda: KINDS)
    known: list[Job] = field(default_factory=list)

    def draw(self, *, chat: bool = False) -> Job:
        """See Jobs."""
        known = self.rng.choice(self.known)
        kind = choose(self.rng, self.kinds)
        ask = {**known.ask, "level": self.rng.choice(LEVELS)}
        if kind == "detach":
            ask["on_disconnect"] = "continue"
        after = self.rng.randrange(len(known.pieces))
        return Job(
            kind,
            known.flavour,
            ask,
            known.pieces,
            known.reason,
            known.stop,
            known.tokens,
            known.prompt_tokens,
            after,
        )

    async def record(self, client: Client, level: str | None = None) -> AsyncIterator[Job]:
        """Ask each question once, one after the other."""
        for question in QUESTIONS:
            ask: dict[str, Any] = {
                "prompt": question,
                "temperature": 0,
                "n_predict": 200,
                "cache_prompt": False,
                "tokens": True,
            }
            async with client.generate(**ask, level=level) as stream:
                pieces = [event async for event in stream.events() if isinstance(event, Piece)]
            result = stream.result
            usage = result.usage
            job = Job(
                "read",
                "engine",
                ask,
                tuple(pieces),
                result.reason,
                result.stop,
                usage["completion_tokens"],
                usage["prompt_tokens"],
            )
            self.known.append(job)
            yield job
