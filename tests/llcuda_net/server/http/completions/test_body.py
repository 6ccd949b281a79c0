"""The body of a completion: what is taken, ignored and refused."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.server.http.completions.body import (
    MAX_CHOICES,
    SUPPORTED,
    Completion,
    CompletionBody,
    read,
)
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.fields import Ignored


def _read(ignored: Ignored | None = None, **fields: Any) -> Completion:
    return read(fields, ignored or Ignored())


def _refused(**fields: Any) -> HttpError:
    with pytest.raises(HttpError) as caught:
        _read(**fields)
    assert caught.value.status == 400
    return caught.value


def test_each_field_is_described() -> None:
    assert list(SUPPORTED) == list(CompletionBody.__struct_fields__)


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_a_prompt_is_a_text_or_ids_or_a_list_of_either(given: Any, prompts: list[Any]) -> None:
    assert _read(prompt=given).prompts == prompts


@pytest.mark.parametrize("given", ["", [], [""], ["a", ""], [[]], ["a", 1], [1, [2]], [-1], 5, {}])
def test_other_prompts_are_refused(given: Any) -> None:
    assert (_refused(prompt=given).param or "").startswith("prompt")


def test_a_prompt_is_needed() -> None:
    assert _refused(max_tokens=1).param == "prompt"


def test_the_parameters_have_llama_servers_names() -> None:
    asked = _read(
        prompt="a",
        suffix="b",
        max_tokens=5,
        temperature=0,
        top_k=3,
        stop="x",
        logit_bias={"5": 1},
        logprobs=2,
        stream=True,
        stream_options={"include_usage": True},
        n=2,
        seed=7,
    )
    assert asked.params == {
        "temperature": 0,
        "stop": "x",
        "n_predict": 5,
        "top_k": 3,
        "logit_bias": [[5, 1]],
        "input_suffix": "b",
        "n_probs": 2,
    }
    assert (asked.n, asked.seeds, asked.logprobs) == (2, [7, 8], 2)
    assert asked.stream
    assert asked.usage


def test_each_choice_of_each_prompt_has_a_seed() -> None:
    assert _read(prompt=["a", "b"], n=2, seed=1).seeds == [1, 2, 3, 4]
    assert _read(prompt=["a", "b"], n=2).seeds == [None] * 4


def test_without_a_limit_there_is_none() -> None:
    assert "n_predict" not in _read(prompt="a", max_tokens=-1).params
    assert "n_predict" not in _read(prompt="a").params


def test_what_changes_nothing_is_ignored_by_name() -> None:
    ignored = Ignored()
    _read(ignored, prompt="a", user="me", best_of=1)
    assert set(ignored.names) == {"user", "best_of"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "b", "prompt": [1]}, "suffix"),
        ({"input_suffix": "b"}, "input_suffix"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"n": MAX_CHOICES + 1}, "n"),
        ({"n": MAX_CHOICES, "prompt": ["a", "b"]}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": 1, "n_probs": 1}, "n_probs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert _refused(**{"prompt": "a", **fields}).param == param
