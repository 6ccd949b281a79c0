"""Goes through every state that a small model can reach, and finds the shortest way to a wrong one.

States are immutable and can be hashed. Since each is visited once, a run of a few seconds says more
than any number of random ones: within the bounds of the model, there is nothing that it has missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

#: What can happen next: the name of each event, and the state after it.
Steps = Callable[[S], Iterable[tuple[str, S]]]


class WrongError(AssertionError):
    """A state, or a step, that must not be; the message is the way there."""


@dataclass(frozen=True)
class Explored(Generic[S]):
    """All that there is.

    Attributes:
        states: how many.
        stuck: states from which the goal cannot be reached any more.
    """

    states: int
    steps: int
    stuck: list[S]


def explore(
    start: S,
    steps: Steps[S],
    check: Callable[[S, S], str | None],
    goal: Callable[[S], bool],
    *,
    most: int = 1_000_000,
) -> Explored[S]:
    """Visit every state, breadth first.

    Args:
        check: what is wrong with a step from one state to another; None: nothing.
        goal: what every state should be able to reach.
        most: states, at most; more are an error of the model.

    Raises:
        WrongError: something is wrong; the way there is a shortest one.
    """
    parents: dict[S, tuple[S, str] | None] = {start: None}
    before: dict[S, list[S]] = {}
    queue = deque([start])
    count = 0
    while queue:
        state = queue.popleft()
        for name, after in steps(state):
            count += 1
            why = check(state, after)
            if why is not None:
                raise WrongError(f"{why}\n{_way(parents, state, name, after)}")
            before.setdefault(after, []).append(state)
            if after not in parents:
                parents[after] = state, name
                queue.append(after)
                assert len(parents) <= most, "the model has more states than were meant"
    good = {state for state in parents if goal(state)}
    left = [*good]
    while left:
        for state in before.get(left.pop(), ()):
            if state not in good:
                good.add(state)
                left.append(state)
    return Explored(len(parents), count, [state for state in parents if state not in good])


def _way(parents: dict[S, tuple[S, str] | None], state: S, name: str, after: S) -> str:
    lines = [f"  {name}: {after}"]
    at: S = state
    while (found := parents[at]) is not None:
        parent, event = found
        lines.append(f"  {event}: {at}")
        at = parent
    return "\n".join([f"  {at}", *reversed(lines)])
