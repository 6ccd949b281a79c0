"""What a continuation is made of, with an upstream that only tokenises."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.generation.attempt.continuation import CannotContinue, Plan, plan
from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.storage.records import TokenLog
from tests.support.server.memory_server import FakeUpstream

#: Tokens beyond bytes (0 to 255) and the beginning of a prompt (256).
WORDS = {300: "he", 301: "heEND!", 302: "EN", 303: "D", 304: " a", 305: "h", 306: "e", 307: "\n"}


class Tokeniser(FakeUpstream):
    """Knows WORDS, the longest first, and bytes; counts what it is asked.

    Args:
        space: put a space in front of every text, as some models want it.
    """

    def __init__(self, *, space: bool = False, context: int = 512) -> None:
        super().__init__(context=context)
        self.space = space
        self.asked = 0

    async def tokenize(self, text: str, *, special: bool, literal: bool = False) -> list[int]:
        self.asked += 1
        ids = [256] if special else []
        if self.space:
            ids += [32]
        words = sorted(WORDS.items(), key=lambda item: -len(item[1]))
        while text:
            token, word = next(((t, w) for t, w in words if text.startswith(w)), (None, text[0]))
            ids += [token] if token is not None else list(word.encode())
            text = text[len(word) :]
        return ids

    async def detokenize(self, ids: list[int]) -> str:
        out = b"".join(WORDS[i].encode() if i in WORDS else bytes([i]) for i in ids if i != 256)
        return out.decode("utf-8", "replace")


async def planned(
    log: TokenLog, prompt: str | list[int] = "x", upstream: Tokeniser | None = None, **params: Any
) -> Plan:
    return await plan(prompt, params, log, upstream or Tokeniser())


async def refusal(log: TokenLog, upstream: Tokeniser | None = None, **params: Any) -> str:
    with pytest.raises(CannotContinue) as caught:
        await planned(log, upstream=upstream, **params)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ONE = TokenLog(["he", " a"], [300, 304])


async def test_the_prompt_is_followed_by_what_was_emitted() -> None:
    found = await planned(ONE, n_predict=7, temperature=0.5, stop=["?"])
    assert found == Plan(
        [256, ord("x"), 300, 304], {"n_predict": 5, "temperature": 0.5, "stop": ["?"]}, 2, 2
    )
    assert (await planned(ONE, [9, 8])).prompt == [9, 8, 300, 304]
    assert (await planned(ONE, n_predict=-1)).params == {"n_predict": -1}


async def test_where_nothing_was_emitted_it_is_run_again() -> None:
    upstream = Tokeniser()
    found = await planned(TokenLog(), "x", upstream, grammar="root ::= x", seed=4)
    assert found == Plan("x", {"grammar": "root ::= x", "seed": 4}, 0)
    assert upstream.asked == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grammar", "root ::= x"),
        ("json_schema", {}),
        ("mirostat", 1),
        ("mirostat", 2),
        ("samplers", ["top_k", "adaptive_p"]),
        ("samplers", "ka"),
        ("t_max_predict_ms", 1),
        ("n_indent", 2),
    ],
)
async def test_what_has_a_state_of_its_own_is_not_continued(name: str, value: Any) -> None:
    assert PARAMETERS[name](value) is None
    assert name in await refusal(ONE, **{name: value})
    # It has ended all the same, where it had.
    assert (await planned(ONE, **{name: value, "n_predict": 2})).finished == "length"


@pytest.mark.parametrize(
    ("params", "more"),
    [
        ({"grammar": "root ::= x"}, {"grammar_type": "tool_calls"}),
        ({"json_schema": {}}, {}),
    ],
)
async def test_a_grammar_is_taken_up_behind_what_was_emitted(
    params: dict[str, Any], more: dict[str, str]
) -> None:
    upstream = Tokeniser()
    upstream.advances = True
    found = await planned(ONE, "x", upstream, **params)
    assert found.prompt == [256, ord("x"), 300, 304]
    assert found.params == params | more | {"generation_prompt": "he a"}
    # What has a state beside it is not.
    assert "mirostat" in await refusal(ONE, upstream, mirostat=1, **params)
    assert (await planned(TokenLog(), "x", upstream, **params)).params == params


async def test_what_is_set_to_do_nothing_is_no_hindrance() -> None:
    harmless: dict[str, Any] = {
        "grammar": "",
        "mirostat": 0,
        "samplers": ["top_k"],
        "t_max_predict_ms": 0,
        "n_indent": 0,
        "n_probs": 3,
        "dry_multiplier": 0.8,
    }
    assert (await planned(ONE, **harmless)).params == harmless


async def test_the_same_random_numbers_are_not_drawn_twice() -> None:
    two = TokenLog(["he", " a", "he"], [300, 304, 300])
    seeds = [(await planned(log, seed=7)).params["seed"] for log in (ONE, ONE, two)]
    assert seeds[0] == seeds[1]
    assert len({7, *seeds}) == 3
    assert all(PARAMETERS["seed"](seed) is None for seed in seeds)
    for random in (-1, (1 << 32) - 1):
        assert (await planned(ONE, seed=random)).params["seed"] == random


async def test_the_limit_and_the_context_end_it() -> None:
    found = await planned(ONE, n_predict=2)
    assert (found.finished, found.stop, found.tokens, found.prompt_tokens) == ("length", None, 2, 2)
    split = TokenLog(["é"], [0xA9], counts=[2])
    assert (await planned(split, n_predict=2)).finished == "length"
    assert (await planned(split, n_predict=3)).params["n_predict"] == 1
    assert (await planned(ONE, upstream=Tokeniser(context=5))).finished is None
    assert (await planned(ONE, upstream=Tokeniser(context=4))).finished == "length"
    assert "context" in await refusal(ONE, Tokeniser(context=3))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
async def test_characters_of_several_tokens_are_recovered(size: int) -> None:
    character = {1: "z", 2: "é", 3: "€", 4: "\U0001f600"}[size]
    data = list(character.encode())
    log = TokenLog(["he", character, "he"], [300, data[-1], 300], counts=[1, size, 1])
    found = await planned(log)
    assert found.prompt == [256, ord("x"), 300, *data, 300]
    assert found.tokens == size + 2
    # Of a model that wants a space in front, too.
    assert (await planned(log, [1], Tokeniser(space=True))).prompt == [1, 300, *data, 300]
    # Another id or another number of tokens: it was tokenised otherwise.
    if size > 1:
        await refusal(TokenLog([character], [1], counts=[size]))
        await refusal(TokenLog([character], [data[-1]], counts=[size + 1]))


async def test_ids_that_were_not_told_are_recovered() -> None:
    upstream = Tokeniser()
    log = TokenLog(["he", " a", "he", "he"], [None, 304, None, 300])
    assert (await planned(log, [1], upstream)).prompt == [1, 300, 304, 300, 300]
    assert upstream.asked == 1  # the same text is not asked twice
    await refusal(TokenLog(["qq"], [None]))


async def test_what_the_tokeniser_would_join_is_recovered_by_its_known_end() -> None:
    log = TokenLog(["he"], [306], counts=[2])
    assert (await planned(log, [1])).prompt == [1, 305, 306]
    # Not where that leaves another number of tokens.
    await refusal(TokenLog(["\nhe"], [306], counts=[2]))


async def test_pieces_without_text_belong_to_the_next() -> None:
    """With log-probabilities, tokens that were held back are told at once, without their text."""
    log = TokenLog(["he", "", "END"], [300, 302, 303])
    assert (await planned(log, stop=["ENDING"])).prompt == [256, ord("x"), 300, 302, 303]
    assert "stop string" in await refusal(TokenLog(["he", ""], [300, 302]), stop=["END"])


async def test_a_stop_string_behind_the_last_piece_was_the_end() -> None:
    # One token, which begins with the text and goes on behind the stop string.
    cut = TokenLog([" a", "he"], [304, 301])
    found = await planned(cut, stop=["nothing", "END"], n_predict=9)
    assert (found.finished, found.stop, found.tokens) == ("stop", "END", 2)
    # Several, of which only the last is told; a limit that was reached, too, does not count.
    cut = TokenLog(["h"], [303], counts=[3])
    found = await planned(cut, stop=["END"], n_predict=3)
    assert (found.finished, found.stop, found.tokens) == ("stop", "END", 3)
    assert found.prompt == [256, ord("x"), 305, 302, 303]
    # Where the stop strings do not explain it, something else is wrong.
    assert "last token" in await refusal(TokenLog(["he"], [304]), stop=["END"])
    assert (await planned(TokenLog(["he"], [300]), stop=["END"])).finished is None
