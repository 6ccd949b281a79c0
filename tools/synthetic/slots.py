"""The slots: who is in them and who waits, as llama-server gives them out, and what they hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .answer import Answer
from .peer import Peer

#: A free slot is preferred where it holds so much of a prompt already; llama-server's default.
_SIMILAR = 0.1


@dataclass(slots=True)
class Slot:
    """One slot.

    Attributes:
        peer: whom it serves now.
        answer: what it says, or said last; its prompt and tokens are what the slot holds.
        task: the number of that answer, -1 before the first.
    """

    id: int
    peer: Peer | None = None
    answer: Answer | None = None
    task: int = -1

    def common(self, ids: Sequence[int]) -> int:
        """How many of a prompt's tokens it holds, from the first on."""
        if self.answer is None:
            return 0
        # The last of what was said is not in the cache: it has been made and not been read.
        held = len(self.answer.ids)
        count = _common(self.answer.ids, ids)
        if count == held and len(ids) > held and self.answer.sent > 1:
            # Tokens are made again, and only for a prompt that goes on so: most do not.
            count += _common(self.answer.tokens(self.answer.sent - 1), ids[held:])
        return count

    def row(self, context: int) -> dict[str, Any]:
        """Its entry in GET /slots."""
        busy = self.peer is not None
        out: dict[str, Any] = {
            "id": self.id,
            "n_ctx": context,
            "speculative": False,
            "is_processing": busy,
        }
        answer = self.answer
        if answer is None:  # llama-server says nothing of a task where there was none yet
            return out
        left = answer.total - answer.sent if busy else -1
        step: dict[str, Any] = {"has_next_token": busy, "has_new_line": False}
        step |= {"n_remain": left, "n_decoded": answer.sent if busy else 0}
        out["id_task"] = self.task
        out["n_prompt_tokens"] = len(answer.ids)
        out["n_prompt_tokens_processed"] = len(answer.ids) - answer.cached
        out["n_prompt_tokens_cache"] = answer.cached
        return {**out, "next_token": [step]}


class Slots:
    """All slots.

    Args:
        start: called with who has got one.
    """

    def __init__(self, count: int, start: Callable[[Peer, Answer], None]) -> None:
        self.all = [Slot(n) for n in range(count)]
        self._start = start
        self._tasks = 0
        self._waiting: deque[Peer] = deque()

    @property
    def active(self) -> int:
        """How many are busy."""
        return sum(slot.peer is not None for slot in self.all)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    def enter(self, peer: Peer) -> None:
        """Give it a slot, or have it wait."""
        self._waiting.append(peer)
        self._fill()

    def leave(self, peer: Peer) -> None:
        """It needs none any more."""
        if peer in self._waiting:
            self._waiting.remove(peer)
        for slot in self.all:
            if slot.peer is peer:
                slot.peer = None
                self._fill()
                return

    def _fill(self) -> None:
        """Start who waits, in their order, as far as there are the slots that they want."""
        while (found := self._next()) is not None:  # one that starts may end at once, and call this
            peer, slot = found
            self._waiting.remove(peer)
            answer = peer.answer
            assert answer is not None
            keeps = answer.request.get("cache_prompt", True)
            # One token at least is evaluated, since the next follows from it.
            answer.cached = min(slot.common(answer.ids), len(answer.ids) - 1) if keeps else 0
            self._tasks += 1
            slot.peer, slot.answer, slot.task = peer, answer, self._tasks
            answer.slot = slot.id
            self._start(peer, answer)

    def _next(self) -> tuple[Peer, Slot] | None:
        if not self._waiting or self.active == len(self.all):
            return None
        for peer in self._waiting:
            if peer.answer is not None and (slot := self._slot_for(peer.answer)) is not None:
                return peer, slot
        return None

    def _slot_for(self, answer: Answer) -> Slot | None:
        """A slot for an answer, if one is to be had now.

        The one asked for, busy or not; there being no such slot, or none asked for: the free one
        that holds most of the prompt, or else the one that has been free for longest.
        """
        wanted = answer.request.get("id_slot", -1)
        if isinstance(wanted, int) and 0 <= wanted < len(self.all):
            slot = self.all[wanted]
            return slot if slot.peer is None else None
        free = [slot for slot in self.all if slot.peer is None]
        if not free:
            return None
        most, best = max((slot.common(answer.ids), -slot.id) for slot in free)
        if most > _SIMILAR * len(answer.ids):
            return self.all[-best]
        return min(free, key=lambda slot: slot.task)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many elements are the same from the first on: in slices, which Python compares fast."""
    same, most = 0, min(len(a), len(b))
    while same < most:
        step = most - same
        while step > 1 and a[same : same + step] != b[same : same + step]:
            step //= 2
        if a[same : same + step] != b[same : same + step]:
            break
        same += step
    return same
