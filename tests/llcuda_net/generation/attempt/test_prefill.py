"""From what a chat is continued, and what is found out before it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest, RequestError, UpstreamUnavailable
from llcuda_net.generation.attempt.continuation import CannotContinue
from llcuda_net.generation.attempt.prefill import Prefill, prefill
from llcuda_net.storage.channels import REASONING, TEXT, TOOL_CALL, Switch, parts
from tests.support.server.memory_server import FakeUpstream

MESSAGES = [{"role": "user", "content": "1 + 2?"}]
THINKS, SPEAKS = Switch(0, REASONING), Switch(2, TEXT)


class Template(FakeUpstream):
    """Renders the last message as the test says."""

    prefills = True

    def __init__(self, rendered: str | RequestError | None = None) -> None:
        super().__init__()
        self.rendered = rendered

    async def render(
        self, messages: list[dict[str, Any]], options: dict[str, Any] | None = None
    ) -> str:
        if isinstance(self.rendered, RequestError):
            raise self.rendered
        return self.rendered or await super().render(messages, options)


async def planned(
    pieces: Sequence[str],
    switches: Sequence[Switch] = (),
    upstream: FakeUpstream | None = None,
    messages: list[dict[str, Any]] = MESSAGES,
    **params: Any,
) -> Prefill:
    cut = [*parts(switches, len(pieces))]
    upstream = upstream or Template()
    return await prefill(messages, {"tools": []}, params, pieces, cut, len(pieces), upstream)


async def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(CannotContinue) as caught:
        await planned(*arguments, **named)
    return str(caught.value)


async def test_the_answer_so_far_begins_the_last_message() -> None:
    found = await planned(["3", " is"], n_predict=9, seed=4, temperature=0.5)
    assert found.messages == [*MESSAGES, {"role": "assistant", "content": "3 is"}]
    assert found.options == {"tools": [], "continue_final_message": True}
    assert found.tokens == 2
    seed = found.params.pop("seed")
    assert found.params == {"n_predict": 7, "temperature": 0.5}
    assert seed != 4, "the first tokens' random numbers are not drawn again"
    assert MESSAGES == [{"role": "user", "content": "1 + 2?"}]


async def test_what_was_thought_stays_apart() -> None:
    thinking = {"role": "assistant", "content": "", "reasoning_content": "hm"}
    assert (await planned(["h", "m"], [THINKS])).messages[-1] == thinking
    found = await planned(["h", "m", "3", " is"], [THINKS, SPEAKS])
    assert found.messages[-1] == thinking | {"content": "3 is"}


async def test_what_is_not_continued() -> None:
    assert "a tool call" in await refusal(["I", "", "{"], [Switch(1, TOOL_CALL, 0, "c", "f")])
    back = [THINKS, SPEAKS, Switch(3, REASONING)]
    assert "again" in await refusal(["h", "m", "3", "no"], back)
    assert "something else" in await refusal(["3", ""])
    assert "within an answer" in await refusal(
        ["3"], messages=[*MESSAGES, {"role": "assistant", "content": "It is"}]
    )
    assert "used up" in await refusal(["3", " is"], n_predict=2)
    assert "grammar" in await refusal(["3"], json_schema={})
    assert "grammar" in await refusal(["3"], grammar="root ::= [0-9]")
    assert "mirostat" in await refusal(["3"], mirostat=2)


@pytest.mark.parametrize(
    "upstream",
    [
        FakeUpstream(),  # begins a message of its own
        Template("user: 1 + 2? assistant: 3 is"),  # trims what it is given
        Template("user: 1 + 2? assistant: 3 is <end>"),
        Template(InvalidRequest("two messages of one role")),
    ],
)
async def test_a_template_that_does_not_end_so(upstream: FakeUpstream) -> None:
    assert "template" in await refusal(["3", " is "], (), upstream)


async def test_a_template_that_forgets_what_was_thought() -> None:
    upstream = Template("user: 1 + 2? assistant: 3")
    assert "template" in await refusal(["h", "m", "3"], [THINKS, SPEAKS], upstream)


async def test_an_upstream_that_is_not_there_is_no_answer() -> None:
    with pytest.raises(UpstreamUnavailable):
        await planned(["3"], (), Template(UpstreamUnavailable("gone")))
