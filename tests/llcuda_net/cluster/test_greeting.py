"""How servers of a cluster show each other that they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llcuda_net.cluster.greeting import SECRET, Greeting

OURS, OTHERS = bytes(range(SECRET)), bytes(SECRET)
CERTIFICATE = b"c" * 32
GREETING = Greeting(7, 9, "ann", bytes(16))


@pytest.mark.parametrize("user", ["ann", "", None])
@pytest.mark.parametrize("certificate", [b"", CERTIFICATE])
def test_what_one_says_the_other_believes(user: str | None, certificate: bytes) -> None:
    said = Greeting.new(7, 9, user, certificate)
    heard = Greeting.of({**said.peer, "colour": "blue"}, certificate)
    assert heard == said
    assert heard.is_right(OURS, said.token(OURS), 9)
    assert said.is_answered(OURS, heard.answer(OURS))
    assert Greeting.new(7, 9, user).nonce != said.nonce


@pytest.mark.parametrize(
    "changed",
    [
        replace(GREETING, server=8),
        replace(GREETING, to=10),
        replace(GREETING, user="bob"),
        replace(GREETING, user=None),
        replace(GREETING, user=""),
        replace(GREETING, nonce=b"1" * 16),
        replace(GREETING, certificate=CERTIFICATE),
    ],
)
def test_nothing_of_it_can_be_changed(changed: Greeting) -> None:
    token, answer = GREETING.token(OURS), GREETING.answer(OURS)
    assert not changed.is_right(OURS, token, changed.to)
    assert not changed.is_answered(OURS, answer)


@pytest.mark.parametrize("token", [None, "", "0" * 64, "\ud800", GREETING.token(OTHERS)])
def test_who_does_not_know_the_secret_is_not_believed(token: str | None) -> None:
    assert not GREETING.is_right(OURS, token, 9)


@pytest.mark.parametrize("proof", [None, b"", bytes(32), GREETING.answer(OTHERS)])
def test_nor_who_answers_without_it(proof: bytes | None) -> None:
    assert not GREETING.is_answered(OURS, proof)


def test_it_is_good_for_one_life_and_not_as_an_answer() -> None:
    token = GREETING.token(OURS)
    assert GREETING.is_right(OURS, token, 9)
    assert not GREETING.is_right(OURS, token, 10)
    assert bytes.fromhex(token) != GREETING.answer(OURS)


@pytest.mark.parametrize("length", [0, 15, 65])
def test_a_nonce_has_a_length(length: int) -> None:
    greeting = replace(GREETING, nonce=bytes(length))
    assert not greeting.is_right(OURS, greeting.token(OURS), 9)
