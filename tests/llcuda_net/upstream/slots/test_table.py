"""Slots are given out when they are known to be free, and never twice."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llcuda_net.upstream.prompts.prefix_cache import BLOCK, TOKENS_A_BLOCK, chain_of, shared
from llcuda_net.upstream.slots import table as module
from llcuda_net.upstream.slots.choice import Outlook, runs_of
from llcuda_net.upstream.slots.table import UNKNOWN, Slot, Slots, Use

#: Of an upstream whose slots share one KV cache.
UNIFIED = Outlook(split_ms=0.0)
ONE, TWO = chain_of("a" * 3 * BLOCK), chain_of("b" * 3 * BLOCK)


def table(count: int) -> Slots:
    slots = Slots()
    slots.resize(count)
    return slots


def take(slots: Slots, chain: tuple[int, ...] = ()) -> Slot:
    found = slots.best(chain)
    assert found is not None
    found[0].turn(Use.BUSY, "ann")
    return found[0]


async def test_until_it_is_known_how_many_there_are_one_may_try() -> None:
    slots = Slots()
    assert not slots.known
    only = take(slots)
    assert slots.best(()) is None
    slots.resize(3)
    assert slots.known
    assert next(iter(slots)) is only  # whoever has it goes on
    assert slots.count(Use.FREE) == 2


# -- the choice -------------------------------------------------------------------------------


def turned(slots: Slots, *numbers: int, use: Use = Use.BUSY) -> Slots:
    """With so many of them active."""
    for slot in slots:
        if slot.number in numbers:
            slot.turn(use)
    return slots


def number_of(slots: Slots, chain: tuple[int, ...] = (), outlook: Outlook = UNKNOWN) -> int:
    found = slots.best(chain, outlook)
    assert found is not None
    return found[0].number


async def test_the_slot_that_holds_most_of_a_prompt_is_chosen(autojump_clock: object) -> None:
    slots = table(3)
    held = list(slots)
    held[1].chain, held[2].chain = ONE[:1], ONE[:2]
    assert slots.best(ONE) == (held[2], 2)
    held[2].turn(Use.BUSY)
    assert slots.best(ONE, UNIFIED) == (held[1], 1)
    assert slots.best(TWO, UNIFIED) == (held[0], 0)


async def test_of_a_unified_cache_else_the_one_that_has_been_idle_longest(
    autojump_clock: object,
) -> None:
    slots = table(3)
    first, second, third = slots
    for slot in (second, third, first):
        await trio.sleep(1)
        slot.turn(Use.FREE)
    assert slots.best(TWO, UNIFIED) == (second, 0)
    assert slots.best(TWO) == (first, 0)


@pytest.mark.parametrize(
    ("active", "chosen"),
    [
        ((), 0),
        ((0,), 1),
        ((3,), 2),
        ((7,), 6),
        ((0, 1, 5, 6), 2),
        ((0, 1, 2), 3),
        ((0, 2), 1),  # the gap is closed
        ((0, 3, 5), 4),  # one run less is better than a gap that is smaller
        ((0, 1, 4, 5), 2),
        ((1, 2, 3), 0),
    ],
)
@pytest.mark.parametrize("use", [Use.BUSY, Use.RELEASING, Use.FOREIGN])
async def test_neighbours_of_whatever_decodes(
    active: tuple[int, ...], chosen: int, use: Use
) -> None:
    assert number_of(turned(table(8), *active, use=use)) == chosen


async def test_a_prefix_is_weighed_against_a_split_batch() -> None:
    slots = turned(table(8), 0, 1)
    slots_of = list(slots)
    slots_of[5].chain = chain_of("a" * 10 * BLOCK)
    prompt = chain_of("a" * 12 * BLOCK)  # 640 of 768 tokens need not be read there
    # Read in 64 ms; in two runs, and with three gaps, the 100 steps take 68.75 * split longer.
    assert number_of(slots, prompt, Outlook(read_ms=0.1, split_ms=0.8, steps=100)) == 5
    assert number_of(slots, prompt, Outlook(read_ms=0.1, split_ms=2.0, steps=100)) == 2
    assert number_of(slots, prompt, Outlook(read_ms=0.1, split_ms=2.0, steps=40)) == 5
    # The upstream keeps less of it than is thought.
    assert number_of(slots, prompt, Outlook(0.1, 0.8, steps=100, found=0.5)) == 2
    # What it is a neighbour of is as good a place as any.
    turned(slots, 4)
    assert number_of(slots, prompt, Outlook(read_ms=0.1, split_ms=3.0, steps=100)) == 5


async def test_what_is_asked_for_again_is_known_though_it_was_lost() -> None:
    slots = table(1)
    only = next(iter(slots))
    only.chain = ONE
    only.chain = TWO
    again, other = chain_of("a" * 3 * BLOCK + "and" * BLOCK), chain_of("a" * 2 * BLOCK)
    assert slots.returns(again)
    assert slots.returns(TWO)
    assert not slots.returns(other)  # a beginning in common is no conversation that goes on
    assert not slots.returns(())


async def test_groups_grow_together_and_do_not_wander() -> None:
    slots = turned(table(16), 3, 4, 7, 8, 9)
    assert number_of(slots) == 5  # not 2, which joins as well
    # What a slot holds that is read in less than a step does not lead away from there.
    slots = turned(table(16), 1, 2)
    first = next(iter(slots))
    first.chain = ONE
    first.turn(Use.FREE)
    assert number_of(slots, TWO, Outlook(read_ms=0.01, split_ms=1.0, step_ms=3.0)) == 0


async def test_of_what_others_hold_the_least_valuable_is_given_up(autojump_clock: object) -> None:
    slots = table(4)
    texts = ["a" * 9, "a" * 5 + "b", "c" * 2, "a" * 5 + "d" * 4]
    for slot, text in zip(slots, texts, strict=True):
        slot.chain = chain_of("".join(letter * BLOCK for letter in text))
    # The second holds 6 blocks, but 5 of them are held elsewhere too.
    assert number_of(slots, (), UNIFIED) == 1
    turned(slots, 1)
    assert number_of(slots, (), UNIFIED) == 2
    # What was used long ago is hardly asked for again.
    await trio.sleep(3600)
    for slot in list(slots)[1:]:
        slot.turn(slot.use)
    assert number_of(slots, (), UNIFIED) == 0


async def test_a_common_beginning_is_not_worth_a_whole_conversation() -> None:
    slots = table(2)
    conversation = chain_of("s" * 2 * BLOCK + "a" * 9 * BLOCK)
    first = next(iter(slots))
    first.chain = conversation
    first.turn(Use.FREE)
    assert number_of(slots, chain_of("s" * 2 * BLOCK + "b" * 9 * BLOCK), UNIFIED) == 1
    assert number_of(slots, conversation, UNIFIED) == 0


CHAINS = st.text("ab", max_size=6).map(lambda text: chain_of("".join(c * BLOCK for c in text)))


@given(
    data=st.lists(st.tuples(st.sampled_from(Use), CHAINS), min_size=1, max_size=12),
    prompt=CHAINS,
    read=st.floats(0.001, 10),
    split=st.floats(0, 100),
)
def test_the_choice_is_the_cheapest_to_within_a_step(
    data: list[tuple[Use, tuple[int, ...]]], prompt: tuple[int, ...], read: float, split: float
) -> None:
    """Against the cost computed anew for each free slot, of all that is held and active."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "current_time", lambda: 100.0)
        slots, outlook = table(len(data)), Outlook(read, split, step_ms=2.0, steps=10)
        for slot, (use, chain) in zip(slots, data, strict=True):
            slot.chain = chain
            slot.turn(use)
        costs = {}
        for slot in slots:
            if slot.use is Use.FREE:
                active = sorted([*slots.active(), slot.number])
                gaps = active[-1] - active[0] + 1 - len(active)
                held = shared(slot.chain, prompt)
                others = {block for one in slots if one is not slot for block in one.chain}
                lost = len([one for one in slot.chain[held:] if one not in others])
                costs[slot.number] = outlook.splitting(runs_of(active), gaps) + outlook.reading(
                    held * TOKENS_A_BLOCK, lost * TOKENS_A_BLOCK, 0.0
                )
        found = slots.best(prompt, outlook)
    if found is None:
        assert not costs
        return
    within = 2.0 if split else 0.0
    assert costs[found[0].number] <= min(costs.values()) + within + 1e-6
    assert found[1] == shared(found[0].chain, prompt)


# -- what is known of them ----------------------------------------------------------------------


async def test_what_was_broken_off_is_free_when_the_upstream_says_so(
    autojump_clock: object,
) -> None:
    slots = table(1)
    slot = take(slots)
    asked = trio.current_time()
    await trio.sleep(1)
    slot.turn(Use.RELEASING)
    assert not slots.observe([False], asked)  # which may be about the request before
    assert slot.use is Use.RELEASING
    await trio.sleep(1)
    assert not slots.observe([True], trio.current_time())
    assert slots.best(()) is None
    assert slots.observe([False], trio.current_time())
    assert slots.best(()) is not None


async def test_work_of_others_keeps_a_slot_from_us(autojump_clock: object) -> None:
    slots = table(2)
    ours = take(slots)
    theirs = next(slot for slot in slots if slot is not ours)
    theirs.chain = ONE
    await trio.sleep(1)
    slots.observe([True, True], trio.current_time())
    assert (ours.use, ours.holder, theirs.use) == (Use.BUSY, "ann", Use.FOREIGN)
    assert theirs.chain == ()  # it holds theirs now
    assert slots.best(()) is None
    await trio.sleep(1)
    # It says that ours idles: that is for whoever reads its stream to find.
    assert slots.observe([False, False], trio.current_time())
    assert (ours.use, theirs.use) == (Use.BUSY, Use.FREE)


async def test_what_is_not_told_is_believed_after_a_while(autojump_clock: object) -> None:
    slots = table(2)
    first = take(slots)
    first.turn(Use.RELEASING)
    await trio.sleep(1)
    second = take(slots)
    second.turn(Use.RELEASING)
    assert not slots.expire(trio.current_time() - 1.5)
    assert slots.expire(trio.current_time() - 0.5)
    assert (first.use, second.use) == (Use.FREE, Use.RELEASING)


async def test_others_work_of_which_nothing_is_told_any_more_is_forgotten(
    autojump_clock: object,
) -> None:
    """As when it comes back without /slots."""
    slots = table(1)
    await trio.sleep(1)
    slots.observe([True], trio.current_time())
    await trio.sleep(2)
    assert slots.expire(trio.current_time() - 1)
    assert slots.best(()) is not None


async def test_what_a_process_held_is_lost_with_it() -> None:
    slots = table(2)
    for slot in slots:
        slot.chain = ONE
    slots.lost()
    assert slots.best(ONE) == (next(iter(slots)), 0)


async def test_a_slot_that_went_away_and_came_back_is_still_its_holders() -> None:
    slots = table(3)
    held = [take(slots) for _ in range(3)]
    slots.resize(1)
    assert len(slots) == 1
    slots.resize(3)
    assert slots.best(()) is None  # the three are at work as before
    assert list(slots) == held


class SlotsMachine(RuleBasedStateMachine):
    """An upstream that says the truth, if late, and somebody else who uses it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "trio", self)  # no task, and so no clock of trio's
        self.slots = Slots()
        self.held: list[Slot] = []
        self.releasing: set[int] = set()  # of the upstream's: broken off and still at work
        self.foreign: set[int] = set()
        self.count = 1

    def current_time(self) -> float:
        self.now += 1e-6
        return self.now

    def teardown(self) -> None:
        self.patch.undo()

    def works(self, number: int) -> bool:
        ours = any(slot.number == number for slot in self.held)
        return ours or number in self.releasing or number in self.foreign

    @rule(chain=st.sampled_from([(), ONE, TWO, ONE[:1]]))
    def take(self, chain: tuple[int, ...]) -> None:
        found = self.slots.best(chain)
        if found is None:
            return
        slot, blocks = found
        assert blocks == len(set(slot.chain) & set(chain))
        number = slot.number
        assert not any(one.number == number for one in self.held), "two leases on one slot"
        assert number not in self.releasing, "what was broken off still works there"
        slot.turn(Use.BUSY, "ann")
        self.held.append(slot)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), well=st.booleans())
    def give_back(self, data: st.DataObject, well: bool) -> None:
        slot = data.draw(st.sampled_from(self.held))
        self.held.remove(slot)
        if well:
            slot.chain = ONE
            slot.turn(Use.FREE)
        else:
            slot.turn(Use.RELEASING)
            self.releasing.add(slot.number)

    @rule(seconds=st.floats(0.1, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=st.integers(0, 3))
    def ended(self, number: int) -> None:
        """What was broken off has ended, or what others do."""
        self.releasing.discard(number)
        self.foreign.discard(number)

    @rule(number=st.integers(0, 3))
    def others_come(self, number: int) -> None:
        if number < self.count and not self.works(number):
            self.foreign.add(number)

    @precondition(lambda self: self.slots.known)
    @rule()
    def look(self) -> None:
        told = [self.works(number) for number in range(self.count)]
        self.slots.observe(told, self.current_time())
        for slot in self.slots:
            if slot.number < self.count and not any(one is slot for one in self.held):
                expected = {False: {Use.FREE}, True: {Use.RELEASING, Use.FOREIGN}}
                assert slot.use in expected[told[slot.number]]

    @rule(count=st.integers(1, 4))
    def resize(self, count: int) -> None:
        self.count = count
        self.slots.resize(count)

    @invariant()
    def each_once(self) -> None:
        assert [slot.number for slot in self.slots] == list(range(len(self.slots)))
        numbers = [slot.number for slot in self.held]
        assert len(numbers) == len(set(numbers))
        assert all(slot.use is Use.BUSY for slot in self.held)


SlotsMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
TestSlotsMachine = SlotsMachine.TestCase
