"""Rank 0's part: which rank gets which line next, and what becomes of what came back.

A line is in one of these places. It moves forward only, with one way back:

    input ──▶ with a rank ──▶ written
      ▲           │
      └─ later ◀──┘   it failed and may be tried again, or its rank lost its server

A rank gets a line when it is free, and none ahead of that, so a slow rank delays only the lines
that it has.
"""

from __future__ import annotations

import heapq
from typing import Any

from llcuda_net.batch.input import Input, Line
from llcuda_net.batch.output import Output
from llcuda_net.errors import ConfigError

#: Seconds before a line is tried again: doubled each time, up to the longest.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
#: Seconds for which a line waits at most because a server asked for that.
LONGEST_ASKED = 60.0
#: Errors that are no fault of the line: these tries are not counted.
_NOT_ITS_FAULT = ("overloaded", "shutting_down", "lease_lost")


class WorkQueue:
    """All lines of a job, and the rank that has each.

    Args:
        given: the input.
        output: where results go, and what is there already.
        params: sampling parameters, for all lines.
        job: makes the lines' keys other than those of another job.
        retries: tries of a line after its first, where an error says that trying again may help.

    Attributes:
        done, failed, skipped: lines written now, those of them that are errors, and those that had
            their result already.
        problems: one line for each error, for people; the first hundred.

    Raises:
        ConfigError: the output has results of lines that the input has not.
    """

    def __init__(
        self, given: Input, output: Output, params: dict[str, Any], job: str = "", *, retries: int
    ) -> None:
        beyond = max(output.known, default=0)
        if beyond > given.last:
            raise self._of_another_input(
                output, f"line {beyond}, where {given.name} ends at line {given.last}"
            )
        self.done = self.failed = self.skipped = 0
        self.problems: list[str] = []
        self._lines = given.read(params, job)
        self._ended = False
        self._output = output
        self._retries = retries
        self._later: list[tuple[float, int, Line]] = []
        self._out: dict[int, tuple[int, Line]] = {}
        self._tries: dict[int, int] = {}

    def __repr__(self) -> str:
        return (
            f"<WorkQueue {self.done} done, {self.failed} of them failed, {self.out} out,"
            f" {len(self._later)} later, {'at' if self._ended else 'before'} the input's end>"
        )

    @property
    def over(self) -> bool:
        """Whether every line is written."""
        return self._ended and not self._later and not self._out

    @property
    def out(self) -> int:
        """Lines that are with ranks."""
        return len(self._out)

    def take(self, rank: int, now: float) -> Line | None:
        """A line for a rank; None if there is none just now.

        Raises:
            ConfigError: what is in the output belongs to another input.
        """
        line = self._due(now) or self._fresh()
        if line is not None:
            self._out[line.number] = (rank, line)
            self._tries[line.number] = self._tries.get(line.number, 0) + 1
        return line

    def _due(self, now: float) -> Line | None:
        if self._later and self._later[0][0] <= now:
            return heapq.heappop(self._later)[2]
        return None

    def _fresh(self) -> Line | None:
        while not self._ended:
            line = next(self._lines, None)
            if line is None:
                self._ended = True
                return None
            self._output.expect(line.number)
            key = self._output.known.get(line.number)
            if key == line.key:
                self.skipped += 1
            elif key is not None:
                raise self._of_another_input(self._output, f"line {line.number} differs")
            elif line.problem:
                self._fail(line, "bad_line", line.problem, retry=False)
            else:
                return line
        return None

    @staticmethod
    def _of_another_input(output: Output, why: str) -> ConfigError:
        return ConfigError(
            f"{output.path} holds the results of another input, or of other parameters ({why}):"
            " give another --output, or --job"
        )

    def finished(self, result: dict[str, Any]) -> None:
        """A rank has an answer: the object to write, with `line` and `key`."""
        number = int(result["line"])
        if self._out.pop(number, None) is not None:
            tries = self._tries.pop(number)
            self._output.add(number, result["key"], {**result, "tries": tries})
            self.done += 1

    def went_wrong(self, number: int, error: dict[str, Any], now: float) -> None:
        """A rank has an error for a line: `code`, `message`, `retry` and `retry_after`."""
        found = self._out.pop(number, None)
        if found is None:
            return
        line = found[1]
        if error["code"] in _NOT_ITS_FAULT:
            self._tries[number] -= 1
        if error["retry"] and self._tries[number] <= self._retries:
            pause = FIRST_PAUSE * 2 ** max(0, self._tries[number] - 1)
            asked = min(LONGEST_ASKED, error.get("retry_after") or 0.0)
            pause = max(min(LONGEST_PAUSE, pause), asked)
            heapq.heappush(self._later, (now + pause, number, line))
            return
        self._fail(line, error["code"], error["message"], retry=error["retry"])

    def give_back(self, rank: int, now: float) -> int:
        """Take the lines of a rank that cannot go on, for others; returns how many."""
        lost = [line for owner, line in self._out.values() if owner == rank]
        for line in lost:
            del self._out[line.number]
            self._tries[line.number] -= 1
            heapq.heappush(self._later, (now, line.number, line))
        return len(lost)

    def _fail(self, line: Line, code: str, message: str, *, retry: bool) -> None:
        result = {
            "line": line.number,
            "id": line.id,
            "key": line.key,
            "error": {"code": code, "message": message, "retry": retry},
            "tries": self._tries.pop(line.number, 0),
        }
        self._output.add(line.number, line.key, result)
        self.done += 1
        self.failed += 1
        if len(self.problems) < 100:
            self.problems.append(f"line {line.number}: {message} ({code})")
