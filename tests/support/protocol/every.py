"""Many cases inside one test, each failure with the name of its case."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def every(cases: Iterable[tuple[Any, ...]], check: Callable[..., None]) -> None:
    """Call `check(*arguments)` for each case `(name, *arguments)`, and fail with all that failed.

    A case fails with any exception, and the others still run.
    """
    count, failures = 0, []
    for name, *arguments in cases:
        count += 1
        try:
            check(*arguments)
        except (Exception, pytest.fail.Exception) as error:
            notes = getattr(error, "__notes__", [])
            failures.append("\n".join([f"{name}: {type(error).__name__}: {error}", *notes]))
    assert count, "there is no case"
    if failures:
        pytest.fail("\n\n".join([f"{len(failures)} of {count} cases failed", *failures]), False)
