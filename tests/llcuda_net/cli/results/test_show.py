"""`llcuda results show`."""

from __future__ import annotations

import pytest

from tests.support.cli.results import NASTY, ODD, TWIN, Llcuda, everything


@pytest.mark.usefixtures("directory")
def test_show_says_everything(llcuda: Llcuda) -> None:
    done = llcuda("show", ODD)
    assert (done.code, done.err) == (0, "")
    for part in (
        f"result {ODD}",
        "done (stop at 'END')",
        "my key",
        "from token 1 on, at http://other:8080",
        "3,000,000 (3.0 MB)",
        "12.5 ms",
        "temperature  0.5",
        "What is a slow reader?",
        "on disconnect      30.0",
        "level              disk",
    ):
        assert part in done.out
    failed = llcuda("show", TWIN).out
    assert "upstream_lost" in failed
    assert "seed   " not in failed


@pytest.mark.usefixtures("directory")
def test_show_tokens_and_text(llcuda: Llcuda) -> None:
    done = llcuda("show", ODD, "--tokens")
    assert done.lines[-3].split() == ["token", "id", "logprob", "piece"]
    assert done.lines[-2].split()[:3] == ["0", "1", "-0.5000"]
    assert done.lines[-1].split() == ["1", "'", "more'"]
    assert "logprob" not in llcuda("show", "result-000003", "--tokens").lines[-9]
    done = llcuda("show", ODD, "--text")
    assert (done.out, done.err) == (NASTY + " more\n", "")  # no terminal: exactly as it is


@pytest.mark.usefixtures("directory")
def test_show_json_has_every_field(llcuda: Llcuda) -> None:
    (found,) = llcuda("show", "--json", ODD).objects
    want = next(one for one in everything() if one.id == ODD)
    renamed = {"log": {"pieces", "ids", "logprobs", "text"}, "key": {"idempotency_key"}}
    for field in want.__struct_fields__:
        assert renamed.get(field, {field}) <= found.keys()
    assert found["text"] == want.text
    assert found["request"] == want.request
    assert found["created"] == "2023-11-14T22:14:00.000000000Z"
    assert found["ids"] == [1, None]
    assert found["splices"] == [{"position": 1, "upstream": "http://other:8080"}]
    (token,), nothing = found["logprobs"]
    assert (token["bytes"], token["logprob"], nothing) == ([65, 255], -0.5, [])
    assert token["top"][1] == {"id": 2, "text": "B", "bytes": [66], "logprob": None}
