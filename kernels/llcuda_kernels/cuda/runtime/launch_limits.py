"""What a launch may ask for: threads, blocks and shared memory. Plain numbers, no GPU needed.

A block's shared memory is what the kernel declares (static) and what the launch adds (dynamic),
together. Up to 48 KiB every GPU gives at once; more it gives where it has more, and is asked to.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Shared memory that a block gets without asking, static and dynamic together.
AT_ONCE = 48 * 1024


@dataclass(frozen=True)
class Limits:
    """Of one GPU, in bytes and blocks; `grid` is of x, y and z."""

    shared: int  # most of a block, static and dynamic together
    shared_of_all: int  # of a multiprocessor, for all of its blocks
    grid: tuple[int, int, int] = (2**31 - 1, 65_535, 65_535)
    threads: int = 1024

    def fit(self, static: int, dynamic: int) -> bool:
        """Whether a block may have so much shared memory."""
        return static + dynamic <= self.shared

    def complaint(
        self, grid: tuple[int, ...], block: tuple[int, ...], static: int, dynamic: int
    ) -> str:
        """Why such a launch cannot be; empty where it can."""
        if any(n > most for n, most in zip(grid, self.grid, strict=True)):
            return f"a grid of {grid} blocks exceeds the device's {self.grid}"
        if block[0] * block[1] * block[2] > self.threads:
            return f"a block of {block} threads exceeds the device's {self.threads}"
        if not self.fit(static, dynamic):
            return (
                f"{static} + {dynamic} bytes of shared memory a block exceed the device's "
                f"{self.shared}"
            )
        return ""


_KIB = 1024
#: By compute capability, from the CUDA C++ programming guide's table of technical specifications.
BY_CAPABILITY = {
    (5, 2): Limits(48 * _KIB, 96 * _KIB),
    (7, 5): Limits(64 * _KIB, 64 * _KIB),
    (8, 0): Limits(163 * _KIB, 164 * _KIB),
    (8, 6): Limits(99 * _KIB, 100 * _KIB),
    (8, 9): Limits(99 * _KIB, 100 * _KIB),
    (9, 0): Limits(227 * _KIB, 228 * _KIB),
    (10, 0): Limits(227 * _KIB, 228 * _KIB),
    (12, 0): Limits(99 * _KIB, 100 * _KIB),
}
