"""The built-in engine and constraints: whatever is asked, nothing comes back that breaks it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llcuda_net import sync
from llcuda_net.errors import InvalidRequest, RequestError, UpstreamError
from llcuda_net.upstream.constraints.checks import breach
from tests.support.processes import RunningServer, run
from tools.constraint_attack import attacks


@pytest.fixture(scope="module")
def client(demo_server: RunningServer) -> Iterator[sync.Client]:
    with sync.connect(demo_server.address) as found:
        yield found


def test_text_held_back_for_a_stop_string_comes_at_the_limit(client: sync.Client) -> None:
    prompt: dict[str, Any] = {"prompt": "Count: one two three four", "temperature": 0}
    whole = client.complete(**prompt, n_predict=6).text
    for end in range(2, len(whole) + 1):
        # A stop string that begins with what the answer ends with, and never comes.
        found = client.complete(**prompt, n_predict=6, stop=[whole[end - 2 :] + "AAAA"])
        assert (found.text, found.reason) == (whole, "length")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--json-schema", '{"$ref": "#/definitions/nope"}'),
        ("--grammar", 'root ::= "a"{3,2}'),
    ],
)
def test_what_cannot_be_kept_is_refused(
    demo_server: RunningServer, tmp_path: Path, option: str, text: str
) -> None:
    file = tmp_path / "constraint"
    file.write_text(text)
    told = run(
        "client", "--server", demo_server.address, "--raw", "one", "-n", "4", option, str(file)
    )
    assert (told.returncode, told.stdout) == (1, "")
    assert f"error: {option[2:].replace('-', '_')} " in told.stderr
    assert "Traceback" not in told.stderr


def test_what_the_engine_does_not_know_is_checked_in_the_answer(client: sync.Client) -> None:
    schema = {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True}
    for seed in range(4):
        with contextlib.suppress(UpstreamError):
            found = client.complete(
                prompt="[", n_predict=40, seed=seed, json_schema=schema, temperature=1.0
            )
            assert breach("json_schema", schema, found.text, found.reason == "length") is None


def test_no_attack_comes_back_unconstrained(client: sync.Client) -> None:
    """A few of the attacks of `make constraint-attack`, with another seed each."""
    done, refused, failed = 0, 0, []
    for number, (kind, constraint) in enumerate(attacks(random.Random(12), 30)):
        params: dict[str, Any] = {kind: constraint}
        try:
            found = client.complete(prompt="one", n_predict=12, seed=number, **params)
        except InvalidRequest:
            refused += 1
            continue
        except RequestError as error:
            failed.append((str(error), constraint))
            continue
        done += 1
        assert breach(kind, constraint, found.text, found.reason == "length") is None, constraint
    assert done
    assert refused
    assert not [one for one in failed if "does not keep" not in one[0]]
    assert client.complete(prompt="one", n_predict=2).text
