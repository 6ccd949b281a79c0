"""Which generations are in memory, and for how long."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.errors import RequestError
from llcuda_net.generation import registry
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import LINGER, Registry
from llcuda_net.generation.state import State
from llcuda_protocol import ErrorCode


def _begun(known: Registry, key: str | None = None, owner: str = "") -> Generation:
    generation = Generation("p", None, {}, 60, key=key, request_hash=b"h", owner=owner)
    known.add(generation)
    generation.accept()
    return generation


def _end(known: Registry, generation: Generation, *, stored: bool) -> None:
    generation.move(State.DONE)
    known.remove(generation, stored=stored)


async def test_what_is_stored_is_forgotten_and_the_rest_lingers(autojump_clock: object) -> None:
    known = Registry()
    stored, lingering = _begun(known, "a"), _begun(known, "b")
    assert (len(known), set(known)) == (2, {stored, lingering})
    _end(known, stored, stored=True)
    _end(known, lingering, stored=False)
    assert len(known) == 0
    assert known.find(stored.id, "") is None
    assert known.find_by_key("a", b"h", "") is None
    await trio.sleep(LINGER - 1)
    assert known.find(lingering.id, "") is lingering
    assert known.find_by_key("b", b"h", "") is lingering
    await trio.sleep(2)
    assert known.find(lingering.id, "") is None
    assert known.find_by_key("b", b"h", "") is None


async def test_only_so_many_linger(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_LINGERING", 3)
    known = Registry()
    begun = [_begun(known) for _ in range(5)]
    for generation in begun:
        _end(known, generation, stored=False)
    assert [known.find(g.id, "") is not None for g in begun] == [False, False, True, True, True]


async def test_what_was_never_accepted_leaves_nothing(autojump_clock: object) -> None:
    known = Registry()
    generation = Generation("p", None, {}, 60, key="k", request_hash=b"h")
    known.add(generation)
    generation.move(State.FAILED)
    known.remove(generation, stored=False)
    assert known.find(generation.id, "") is None
    assert known.find_by_key("k", b"h", "") is None


async def test_ids_and_keys_are_their_owners(autojump_clock: object) -> None:
    known = Registry()
    mine, yours = _begun(known, "k", "me"), _begun(known, "k", "you")
    assert known.find(mine.id, "you") is None
    assert known.find_by_key("k", b"h", "me") is mine
    assert known.find_by_key("k", b"h", "you") is yours
    with pytest.raises(RequestError) as caught:
        known.find_by_key("k", b"another", "me")
    assert caught.value.code == ErrorCode.KEY_CONFLICT


async def test_a_key_means_the_last_that_began_with_it(autojump_clock: object) -> None:
    known = Registry()
    first = _begun(known, "k")
    first.move(State.CANCELLED)
    assert known.find_by_key("k", b"h", "") is None
    second = _begun(known, "k")
    known.remove(first, stored=False)
    await trio.sleep(LINGER + 1)
    assert known.find_by_key("k", b"h", "") is second


async def test_a_generation_that_turns_out_to_be_stored(autojump_clock: object) -> None:
    known = Registry()
    generation = _begun(known)
    before = generation.id
    known.rename(generation, "stored")
    assert (known.find(before, ""), known.find("stored", "")) == (None, generation)
