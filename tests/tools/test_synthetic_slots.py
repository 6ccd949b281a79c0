"""The synthetic upstream gives out its slots as llama-server does, and its fault can be changed.

Each test has a process of its own. Waits are for events; the timeouts only end a test that failed.
"""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.tools.test_synthetic_upstream import (
    ASK,
    END,
    TIMEOUT,
    ask,
    events,
    exchange,
    upstream,
)
from tools.synthetic.answer import Answer, Language
from tools.synthetic.faults import Faults
from tools.synthetic.slots import Slot, _common
from tools.synthetic.tokens import generated, generation, tokenise, whole_text

Address = tuple[str, int]


@contextmanager
def holding(address: Address, **fields: Any) -> Iterator[http.client.HTTPResponse]:
    """A stream that has begun and does not end by itself; it is dropped with the block."""
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        body = {**ASK, "n_predict": -1, **fields}
        connection.request("POST", "/completion", json.dumps(body))
        with connection.getresponse() as response:
            assert response.fp.readline()
            yield response
    finally:
        connection.close()


def said(address: Address, prompt: str | list[int], **fields: Any) -> Any:
    body = {"prompt": prompt, "n_predict": 4, **fields}
    status, reply = ask(address, "/completion", body)
    assert status == 200
    return reply


def busy(address: Address) -> list[bool]:
    return [slot["is_processing"] for slot in ask(address, "/slots")[1]]


def test_the_slot_asked_for_is_given() -> None:
    with upstream("--rate", "0", "--slots", "3") as address:
        for slot in (2, 0, 2):
            assert said(address, "hello", id_slot=slot)["id_slot"] == slot
        for none in (-1, 7):
            assert said(address, "other", id_slot=none)["id_slot"] == 1  # free for longest


def test_a_busy_slot_is_waited_for_though_others_are_free() -> None:
    with upstream("--slots", "3", "--rate", "50", "--ctx", "1000000") as address:
        with holding(address, id_slot=1):
            waiter = http.client.HTTPConnection(*address, timeout=TIMEOUT)
            waiter.request("POST", "/completion", json.dumps({**ASK, "id_slot": 1}))
            while ask(address, "/synthetic")[1]["waiting"] != 1:
                pass
            # Who comes later and wants another slot is not held up.
            assert said(address, "hello", id_slot=0)["id_slot"] == 0
            assert busy(address) == [False, True, False]
            assert ask(address, "/synthetic")[1]["waiting"] == 1
        final = waiter.getresponse().read().strip().rpartition(b"data: ")[2]
        waiter.close()
        assert json.loads(final)["id_slot"] == 1
        assert busy(address) == [False] * 3


def test_slots_tell_of_their_tasks() -> None:
    with upstream("--slots", "2", "--rate", "50", "--ctx", "64") as address:
        unused = {"n_ctx": 64, "speculative": False, "is_processing": False}
        assert ask(address, "/slots")[1] == [{"id": 0, **unused}, {"id": 1, **unused}]
        said(address, "hello", id_slot=1)
        first = ask(address, "/slots")[1]
        assert "id_task" not in first[0]
        with holding(address, id_slot=1, fault="hold:1"):
            second = ask(address, "/slots")[1]
        assert second[1]["is_processing"] is True
        assert second[1]["id_task"] > first[1]["id_task"]
        assert second[1]["next_token"][0]["n_decoded"] >= 1


def test_what_a_slot_holds_is_not_evaluated_again() -> None:
    whole = generation("hello", 4)
    asked: list[tuple[str, int, dict[str, Any]]] = [
        ("hello", 0, {}),
        ("hello", 4, {}),  # the last token is always evaluated
        ("help", 3, {}),
        ("hello there", 3, {}),  # "help" has taken the place of "hello"
        ("hello", 0, {"cache_prompt": False}),
        (f"hello{whole}!", 5 + 3, {}),  # the last of the four was made, and not evaluated
    ]
    with upstream("--rate", "0", "--slots", "2") as address:
        for prompt, cached, more in asked:
            reply = said(address, prompt, id_slot=0, **more)
            assert reply["timings"]["cache_n"] == cached, prompt
            assert reply["timings"]["prompt_n"] == len(tokenise(prompt)) - cached
            assert reply["tokens_evaluated"] == len(tokenise(prompt))
        assert said(address, "hello", id_slot=1)["timings"]["cache_n"] == 0


def test_without_a_slot_asked_for_the_one_that_holds_the_prompt_is_taken() -> None:
    with upstream("--rate", "0", "--slots", "3") as address:
        said(address, "once upon a time", id_slot=1)
        said(address, "something else", id_slot=2)
        assert said(address, "once upon a day")["id_slot"] == 1
        assert said(address, "nothing of these")["id_slot"] == 0


def test_all_waiting_get_their_turn_where_answers_end_at_once() -> None:
    with upstream("--rate", "0", "--slots", "1", "--ctx", "1000000") as address:
        connections = [http.client.HTTPConnection(*address, timeout=TIMEOUT) for _ in range(5)]
        with holding(address):
            for n, connection in enumerate(connections):
                body = {"prompt": f"number {n}", "n_predict": 2, "id_slot": n % 2}  # no slot 1
                connection.request("POST", "/completion", json.dumps(body))
            while ask(address, "/synthetic")[1]["waiting"] != 5:
                pass
        for n, connection in enumerate(connections):
            reply = json.load(connection.getresponse())
            assert reply["content"] == generation(f"number {n}", 2)
            connection.close()
        assert busy(address) == [False]


@pytest.mark.parametrize("prompt", ["hello", "hello [[split:3]]"])
def test_a_continuation_given_as_ids_goes_on_the_same_in_any_slot(prompt: str) -> None:
    ids = generated(prompt, 30)
    with upstream("--rate", "0", "--slots", "2") as one, upstream("--rate", "0") as other:
        for cut in (1, 13, 29):
            for address, slot in ((one, 0), (one, 1), (other, 0)):
                reply = said(
                    address,
                    tokenise(prompt) + ids[:cut],
                    n_predict=30 - cut,
                    id_slot=slot,
                    return_tokens=True,
                )
                assert reply["tokens"] == ids[cut:]


def test_its_name() -> None:
    with upstream("--rate", "0", "--model", "some-model") as address:
        assert ask(address, "/props")[1]["model_alias"] == "some-model"
        assert said(address, "hello")["model"] == "some-model"
        assert said(address, "hello")["content"] == generation("hello", 4)


def test_the_fault_is_set_and_cleared_while_it_runs() -> None:
    body = {"prompt": "hello", "n_predict": 2}
    with upstream("--rate", "0") as address:
        assert ask(address, "/synthetic")[1]["fault"] is None
        for _ in range(2):
            assert ask(address, "/synthetic", {"fault": "http:503*1"})[1]["fault"] == "http:503*1"
            statuses = [ask(address, "/completion", body)[0] for _ in range(2)]
            assert statuses == [503, 200]
        ask(address, "/synthetic", {"fault": "http"})
        assert ask(address, "/completion", body)[0] == 500
        assert ask(address, "/synthetic", {"fault": "nonsense"})[0] == 400
        assert ask(address, "/completion", body)[0] == 500
        assert ask(address, "/synthetic", {"fault": None})[0] == 200
        assert ask(address, "/completion", body)[0] == 200


def test_a_fault_is_not_set_from_elsewhere() -> None:
    with upstream("--rate", "0", "--host", "0.0.0.0") as address:
        assert ask(address, "/synthetic", {"fault": "http"})[0] == 403
        assert said(address, "hello")["stop"] is True


def test_a_fault_set_again_strikes_again() -> None:
    faults = Faults("die*1")
    assert [faults.choose() is not None for _ in range(2)] == [True, False]
    faults.set("die*1")
    assert [faults.choose() is not None for _ in range(2)] == [True, False]
    faults.set(None)
    assert faults.choose() is None


def test_common_prefixes() -> None:
    rng = random.Random(1)
    for _ in range(500):
        a = [rng.randrange(2) for _ in range(rng.randrange(12))]
        b = a[: rng.randrange(len(a) + 1)] + [rng.randrange(2) for _ in range(rng.randrange(5))]
        count = 0
        while count < min(len(a), len(b)) and a[count] == b[count]:
            count += 1
        assert _common(a, b) == count


def test_a_slot_that_has_said_nothing_holds_its_prompt() -> None:
    slot = Slot(0, answer=Answer({}, [1, 2, 3], Language(), None))
    assert slot.common([1, 2, 3, 4]) == 3
    assert Slot(0).common([1]) == 0


def test_a_prompt_that_asks_for_split_characters_is_not_saved_from_the_fault() -> None:
    prompt = "hello [[split:3]]"
    ids = generated(prompt, 30)
    with upstream("--rate", "0") as address:
        ask(address, "/synthetic", {"fault": "error-event:20"})
        body = {**ASK, "prompt": prompt, "n_predict": 30}
        *tokens, error = events(exchange(address, body, END))
        assert error["error"]["message"] == "synthetic error"
        text = "".join(token["content"] for token in tokens)
        assert text == whole_text(ids[:20])
        assert any(i in ids for i in range(256))
