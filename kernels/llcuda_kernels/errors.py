"""What goes wrong, in one line each."""

from __future__ import annotations


class KernelError(Exception):
    """The base of this library's own errors."""


class BackendError(KernelError):
    """The backend asked for cannot be used here; the message says why and what would help."""


class MemoryLimitError(KernelError, MemoryError):
    """A pool's limit would be exceeded."""
