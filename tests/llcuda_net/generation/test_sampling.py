"""Sampling parameters: what passes, what is refused and in which words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import RequestError
from llcuda_net.generation.sampling import MAX_PROBS, PARAMETERS, check
from llcuda_protocol import ErrorCode


#: For each parameter values that pass, and values that do not.
def _deep(levels: int) -> dict[str, Any]:
    """A schema of so many levels."""
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "n_predict": ([1, 4096], [0, -1, 1.0, True, "5", None, 1 << 31]),
    "temperature": ([0, 0.8, 2, 100.0], [-0.1, 101, "hot", True, None, [1]]),
    "dynatemp_range": ([0, 1.5], [-1, "x"]),
    "dynatemp_exponent": ([1.0], [-1, "x"]),
    "top_k": ([0, -1, 40], [-2, 1.5, "40", True, 1 << 21]),
    "top_p": ([0, 0.5, 1], [-0.01, 1.01, "x"]),
    "min_p": ([0.05], [2, "x"]),
    "top_n_sigma": ([-1, 1.5], [-2, "x"]),
    "xtc_probability": ([0.5], [1.5, "x"]),
    "xtc_threshold": ([0.1], [-1, "x"]),
    "typical_p": ([1.0], [1.1, "x"]),
    "repeat_last_n": ([-1, 64], [-2, 1.5, (1 << 31) - 1]),
    "repeat_penalty": ([1.1], [-1, "x"]),
    "presence_penalty": ([-2.0, 2.0], [101, "x"]),
    "frequency_penalty": ([-2.0, 2.0], [-101, "x"]),
    "dry_multiplier": ([0.8], [-1, "x"]),
    "dry_base": ([1.75], [-1, "x"]),
    "dry_allowed_length": ([2], [-1, 2.5]),
    "dry_penalty_last_n": ([-1, 100], [-2, "x", (1 << 31) - 1]),
    "dry_sequence_breakers": ([["\n", ":"]], [[""], [1], {}]),
    "mirostat": ([0, 1, 2], [3, -1, 1.0]),
    "mirostat_tau": ([5.0], [-1, "x"]),
    "mirostat_eta": ([0.1], [-1, "x"]),
    "seed": ([-1, 0, (1 << 32) - 1], [-2, 1 << 32, 1.5]),
    "stop": ([["END"], []], ["", [""], [1], ["x"] * 65, {"a": 1}, 5]),
    "grammar": (
        ['root ::= "a"', 'root ::= "' + "(" * 2000 + '"'],
        [5, ["x"], "(" * 50_000 + ")" * 50_000, "é" * 40_000],
    ),
    "json_schema": (
        [
            _deep(100),
            {"type": "object"},
            {"maxItems": 10_000},
            {"properties": {"maxItems": {"maxLength": 9}}},
        ],
        [
            "{}",
            [],
            {"anyOf": [{"items": {"minLength": 10_001}}]},
            {"maxItems": 1e9},
            _deep(101),
            _deep(5000),
        ],
    ),
    "logit_bias": (
        [[[15043, 1.0], ["a", False]], {"a": False, "b": -1}, [], {}],
        ["x", 1, [5], [[5]], [[5, True]], [[-1, 1]], [[1.5, 1]], {"a": None}, [[1, 2, 3]]],
    ),
    "ignore_eos": ([True, False], [1, "true", None]),
    "samplers": ([["top_k", "min_p"], "kmt", []], [[1], 5, ["x"], "top_k"]),
    "n_keep": ([-1, 10], [-2, "x"]),
    "n_indent": ([0], [-1, "x"]),
    "n_probs": ([0, MAX_PROBS], [-1, MAX_PROBS + 1, 1.0, "x"]),
    "min_keep": ([0], [-1, "x"]),
    "post_sampling_probs": ([True], [0, "x"]),
    "t_max_predict_ms": ([0, 1000], [-1, 0.5]),
    "cache_prompt": ([False], [0, "no"]),
    "input_suffix": (["", "\n}"], [5, None, ["x"]]),
    "lora": (
        [[{"id": 0, "scale": 1.0}], []],
        [{}, "x", ["x"], [{}], [{"id": 0}], [{"id": "0", "scale": 1}], [{"id": 0, "scale": None}]],
    ),
}


def test_the_cases_cover_every_parameter() -> None:
    assert set(CASES) == set(PARAMETERS)


@pytest.mark.parametrize("name", CASES)
def test_good_values_pass_on_as_they_are(name: str) -> None:
    for value in CASES[name][0]:
        assert check({name: value}, None) == {name: value}


@pytest.mark.parametrize("name", CASES)
def test_wrong_values_are_refused_by_name(name: str) -> None:
    for value in [*CASES[name][1], float("nan"), float("inf")]:
        with pytest.raises(RequestError, match=f"^{name} must ") as caught:
            check({name: value}, None)
        assert caught.value.code == ErrorCode.INVALID_REQUEST
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "hint"),
    [("temprature", "temperature"), ("top-k", "top_k"), ("n_prob", "n_probs"), ("prompt", "")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        check({name: 1}, None)
    assert caught.value.code == ErrorCode.UNKNOWN_PARAMETER
    assert repr(name) in caught.value.message
    assert (f"did you mean {hint}" in caught.value.message) if hint else True


@pytest.mark.parametrize(
    "name", ["stream", "prompt", "return_tokens", "response_fields", "id_slot"]
)
def test_what_the_server_sets_itself_is_not_the_clients(name: str) -> None:
    with pytest.raises(RequestError):
        check({name: True}, None)


def test_the_context_bounds_n_predict_and_is_its_default() -> None:
    assert check({}, 512) == {"n_predict": 512}
    assert check({"n_predict": 512}, 512) == {"n_predict": 512}
    assert check({}, None) == {}
    with pytest.raises(RequestError, match="1 to 512, the context"):
        check({"n_predict": 513}, 512)


@pytest.mark.parametrize("name", ["repeat_last_n", "dry_penalty_last_n"])
def test_the_context_bounds_what_is_looked_back_at(name: str) -> None:
    for value in (-1, 0, 512):
        assert check({name: value}, 512)[name] == value
    with pytest.raises(RequestError, match=f"^{name} must be -1 to 512, the context"):
        check({name: 513}, 512)


def test_one_stop_string_becomes_a_list_and_the_input_stays() -> None:
    given_ = {"stop": "END"}
    assert check(given_, None) == {"stop": ["END"]}
    assert given_ == {"stop": "END"}


def test_grammar_and_schema_exclude_each_other() -> None:
    with pytest.raises(RequestError, match="not both"):
        check({"grammar": "x", "json_schema": {}}, None)


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(RequestError) as caught:
        check({"temperature": "x" * 10_000}, None)
    assert len(caught.value.message) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)) | st.text(max_size=12), JSON))
def test_anything_is_passed_or_refused_and_nothing_else(params: dict[str, Any]) -> None:
    try:
        checked = check(params, 512)
    except RequestError as error:
        wrong = error.message
    else:
        wrong = ""
    if wrong:
        assert "\n" not in wrong
        return
    assert set(checked) == {*params, "n_predict"}
    assert 1 <= checked["n_predict"] <= 512
    for name, value in checked.items():
        if isinstance(value, float):
            assert json.loads(json.dumps(value)) == value, name


def test_the_table_in_the_specification() -> None:
    """SPEC.md has every parameter, with the bounds and the kind of value that the code takes."""
    text = (Path(__file__).parents[3] / "protocol" / "SPEC.md").read_text()
    table = text.split("#### Sampling parameters")[1].split("### 9.4")[0]
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \| (.+?) \|", table, re.M)}
    assert list(rows) == list(PARAMETERS)
    kinds = {
        "boolean": True,
        "string": "x",
        "string, or list of 0 to 64 strings": ["x"] * 64,
        "map": {},
        "list of pairs, or map": [[1, False]],
        "list of strings, or string": ["top_k"],
        "list of maps": [{"id": 0, "scale": 1.0}],
    }
    for name, values in rows.items():
        rule = PARAMETERS[name]
        numbers = re.fullmatch(r"(integer|number) (\S+) to (\S+)", values)
        if numbers is None:
            assert rule(kinds[values]) is None, name
            assert rule(0.5) is not None, name
            continue
        low, high = int(numbers[2]), int(numbers[3])
        assert (rule(low), rule(high)) == (None, None), name
        assert None not in (rule(low - 1), rule(high + 1), rule(True), rule(None)), name
        assert (rule(low + 0.5) is None) == (numbers[1] == "number"), name


def test_the_nearest_of_a_very_long_name_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes seconds for a name of some megabytes, and nothing else runs meanwhile."""

    def slow(*_: object, **__: object) -> list[str]:
        raise AssertionError

    monkeypatch.setattr("llcuda_net.generation.sampling.difflib.get_close_matches", slow)
    with pytest.raises(RequestError, match="there is no parameter 'xxx") as caught:
        check({"x" * (4 << 20): 1}, 512)
    assert len(caught.value.message) < 200
