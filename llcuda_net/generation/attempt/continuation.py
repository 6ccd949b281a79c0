"""How a generation goes on after what ran it has ended: prompted with the tokens it has so far.

The model then stands where it stood, if the prompt is exactly the ids that it had: those of the
request's prompt, and behind them those of every piece that was emitted. Nothing that was emitted is
ever taken back, and nothing that was not is assumed.

What makes this exact, of llama-server (the tests hold the real engine to it):

- An event carries only its last token's id. Tokens that hold a part of a character send no event at
  all, and the text of what may become a stop string comes with a later token. So a log ends where a
  character and a token end, and tokens that were made but not emitted are simply made again.
- Stop strings are looked for in what has not been sent yet, and the longest end of it that could
  begin one is held back. So what was emitted never ends in the beginning of a stop string, and
  looking for them anew, from there on, finds the same. One thing can be left: the last event before
  the end says the text before a stop string with the id of the token that completed it. Then the
  token's text and the piece's differ, by which it is known that the log had ended.
- The samplers that look back (penalties, DRY) are shown the prompt before they choose, so they find
  in it what they had seen. Those with a state of their own are not continued; see _OWN_STATE.
- A grammar, which a JSON schema becomes as well, has read none of the prompt. llama-server advances
  it past the text of `generation_prompt`, where the grammar is not one of the type that users give.
  Older ones ignore both names, so an upstream is tried once: see Upstream.advances_grammars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from llcuda_net.errors import LlcudaError
from llcuda_net.generation import sampling
from llcuda_net.storage.records import TokenLog
from llcuda_net.upstream.interface import Upstream

#: Parameters whose effect depends on more than the tokens so far, and when they do.
_OWN_STATE: dict[str, Callable[[Any], bool]] = {
    # Mirostat steers by the surprise of every token that it chose itself.
    "mirostat": bool,
    # Adaptive-p keeps a mean of the probabilities of the tokens that it chose itself.
    "samplers": lambda value: "adaptive_p" in value if isinstance(value, list) else "a" in value,
    # Its clock would start anew, and only at the next line.
    "t_max_predict_ms": bool,
    # Looks at the indentation of the lines generated so far, the one that is cut included.
    "n_indent": bool,
}
#: What the sampler reads its own way through, and when it is there: {} is a schema, too.
_GRAMMARS: dict[str, Callable[[Any], bool]] = {
    "grammar": bool,
    "json_schema": lambda value: value is not None,
}

#: What is known of the ids that a piece stands for.
_Known = tuple[int | None, ...]


class CannotContinue(LlcudaError):  # noqa: N818 - not always an error: it says no
    """Prompting again would not be the same thing; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to go on.

    Attributes:
        prompt: what to prompt the upstream with: token ids, or, where nothing was generated, the
            prompt as it was given.
        params: the parameters to do it with.
        tokens: how many tokens were generated so far; the upstream counts on from nothing.
        prompt_tokens: how many the request's own prompt has; 0 where that was not looked up.
        finished: the reason, stop or length, where it has come to its end: prompt nothing then.
        stop: the stop string that ended it.
    """

    prompt: str | list[int]
    params: dict[str, Any]
    tokens: int
    prompt_tokens: int = 0
    finished: str | None = None
    stop: str | None = None


async def plan(
    prompt: str | list[int], params: Mapping[str, Any], log: TokenLog, upstream: Upstream
) -> Plan:
    """How to continue a generation.

    Args:
        prompt: what the upstream was given: where a chat was asked for, as it was rendered then.
        params: checked, as the upstream was given them.
        log: what was emitted.
        upstream: has the same model; see fingerprint.same_model.

    Raises:
        CannotContinue: the continuation would not be what the upstream would have said.
        RequestError: the upstream cannot be asked.
    """
    if not log.pieces:
        return Plan(prompt, dict(params), 0)
    stops = params.get("stop") or []
    texts = _Texts(upstream)
    generated, stop = await _ids(log, [stops] if isinstance(stops, str) else stops, texts)
    given = prompt
    if isinstance(given, str):
        given = await upstream.tokenize(given, special=True)
    context = (await upstream.ask()).context
    left = dict(params)
    tokens = len(generated)
    finished = None
    if stop is not None:
        finished = "stop"
    elif (limit := int(params.get("n_predict", -1))) >= 0:
        left["n_predict"] = limit - tokens
        if left["n_predict"] <= 0:
            finished = "length"
    whole = given + generated
    if finished is None and len(whole) >= context:
        if len(whole) > context:  # it shifts its context, or has less of it than it had
            raise CannotContinue(f"prompt and answer fill the context of {context} tokens")
        finished = "length"
    if finished is None:
        check_state(params)
        grammar = next((n for n, is_one in _GRAMMARS.items() if is_one(params.get(n))), None)
        if grammar is not None:
            if not await upstream.advances_grammars():
                raise CannotContinue(f"this upstream cannot take up a {grammar} where it stood")
            left["generation_prompt"] = "".join(log.pieces)
            if grammar == "grammar":
                left["grammar_type"] = "tool_calls"
        if sampling.has_seed(params):
            left["seed"] = later_seed(params["seed"], tokens)
    return Plan(whole, left, tokens, len(given), finished, stop)


def check_state(params: Mapping[str, Any]) -> None:
    """Return if what the samplers do next depends on the tokens so far alone.

    Raises:
        CannotContinue: it does not.
    """
    name = _with_state(params)
    if name is not None:
        raise CannotContinue(f"{name} depends on more than the tokens so far")


def _with_state(params: Mapping[str, Any]) -> str | None:
    """A parameter that depends on more than the tokens so far."""
    for name, has_state in _OWN_STATE.items():
        if name in params and has_state(params[name]):
            return name
    return None


def later_seed(seed: int, tokens: int) -> int:
    """A seed for what follows: the given one would draw the first tokens' random numbers again."""
    data = f"{seed} {tokens}".encode()
    return int.from_bytes(blake2b(data, digest_size=4).digest(), "big") % sampling.SEEDS


# -- the ids of the log -------------------------------------------------------------------------


async def _ids(log: TokenLog, stops: list[str], texts: _Texts) -> tuple[list[int], str | None]:
    """The ids of everything that was emitted, and the stop string that was found behind it."""
    if not log.pieces[-1]:
        # Only with log-probabilities: they were told, of tokens whose text was held back.
        raise CannotContinue("it was cut within what may have become a stop string")
    model_keys = list(_groups(log))
    out: list[int] = []
    for text, known in model_keys[:-1]:
        out += await _recover(text, known, texts)
    text, known = model_keys[-1]
    if stops:
        # Then, and only then, the last text may be less than its tokens'.
        ids = await texts.ids(text, known)
        if ids is None:
            ids, stop = await _with_stop(text, known, stops, texts)
            return out + ids, stop
        return out + ids, None
    return out + await _recover(text, known, texts), None


def _groups(log: TokenLog) -> list[tuple[str, _Known]]:
    """Pieces, each with those without text before it, and what is known of their ids."""
    counts = log.counts or [1] * len(log.pieces)
    out: list[tuple[str, _Known]] = []
    known: list[int | None] = []
    for piece, last, count in zip(log.pieces, log.ids, counts, strict=True):
        known += [None] * (count - 1) + [last]
        if piece:
            out.append((piece, tuple(known)))
            known = []
    return out


async def _recover(text: str, known: _Known, texts: _Texts) -> list[int]:
    if None not in known:
        return [i for i in known if i is not None]
    ids = await texts.ids(text, known)
    if ids is None:
        raise CannotContinue("the upstream did not tell all token ids, and they cannot be found")
    return ids


async def _with_stop(
    text: str, known: _Known, stops: list[str], texts: _Texts
) -> tuple[list[int], str]:
    """The ids of a text that a stop string followed, and which."""
    last = known[-1]
    end = "" if last is None else await texts.text([last])
    for stop in stops:
        # The token that completed the stop string may go on behind it.
        for length in range(len(end) + 1):
            whole = text + stop + end[len(end) - length :]
            if whole.endswith(end) and (ids := await texts.ids(whole, known)) is not None:
                return ids, stop
    raise CannotContinue("the last token's text is not what was emitted of it")


class _Texts:
    """Finds the ids of texts, asking the upstream once for each."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._found: dict[tuple[str, _Known], list[int] | None] = {}
        self._texts: dict[tuple[int, ...], str] = {}

    async def text(self, ids: list[int]) -> str:
        """What ids spell."""
        key = tuple(ids)
        if key not in self._texts:
            self._texts[key] = await self._upstream.detokenize(ids)
        return self._texts[key]

    async def ids(self, text: str, known: _Known) -> list[int] | None:
        """The ids of a text, as many as `known` and with those that are; None: there are none."""
        key = (text, known)
        if key not in self._found:
            self._found[key] = await self._find(text, known)
        return self._found[key]

    async def _find(self, text: str, known: _Known) -> list[int] | None:
        candidates = []
        last = known[-1]
        if None not in known:
            candidates.append([i for i in known if i is not None])
        else:
            candidates += await self._tokenised(text)
            if last is not None:
                # A tokeniser may join what the model said apart, but not behind the known end.
                end = await self.text([last])
                if end and text.endswith(end):
                    before = await self._tokenised(text[: len(text) - len(end)])
                    candidates += [[*ids, last] for ids in before]
        for ids in candidates:
            fits = len(ids) == len(known) and all(
                one is None or one == other for one, other in zip(known, ids, strict=True)
            )
            if fits and await self.text(ids) == text:
                return ids
        return None

    async def _tokenised(self, text: str) -> list[list[int]]:
        """As it is, and without the space that some models put in front."""
        if not text:
            return [[]]
        ids = await self._upstream.tokenize(text, special=False)
        return [ids, ids[1:]]
